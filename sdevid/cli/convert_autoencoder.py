"""`sdevid convert-autoencoder`: turn a published autoencoder's weights into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdevid.command_line import command_parser
from sdevid.console import say
from sdevid.owner import own


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert TAEF2's two pickles. Raises UserError where they are not TAEF2's."""
    parser = command_parser(
        "convert-autoencoder",
        "Turn TAEF2's published weights into a folder for encoder.frozen, once. Of the pickles "
        "tensors alone are read.",
        "sdevid convert-autoencoder taef2 --encoder taef2_encoder.pth --decoder taef2_decoder.pth "
        "--output_dir weights/taef2",
    )
    parser.add_argument("kind", choices=["taef2"], help="what the weights are of")
    parser.add_argument("--encoder", type=Path, required=True, help="taef2_encoder.pth")
    parser.add_argument("--decoder", type=Path, required=True, help="taef2_decoder.pth")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)
    from sdevid.autoencoder import folder, taef2

    with own(options.output_dir, "output_dir", say):
        taef2.convert(options.encoder, options.decoder, options.output_dir)
    fingerprint = folder.identity(options.output_dir)["fingerprint"]
    print(f"{options.output_dir}, fingerprint {fingerprint}; set encoder.frozen to it")
    return 0
