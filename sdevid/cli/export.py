"""`sdevid export`: write a run's weights as safetensors and YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdevid.command_line import command_parser
from sdevid.console import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a run or a checkpoint. Raises UserError where there is none."""
    parser = command_parser(
        "export",
        "Write a run's weights as model.safetensors beside its config.yaml.",
        "sdevid export --model_path runs/mine --output_dir runs/mine/exported",
    )
    parser.add_argument("--model_path", type=Path, required=True, help="run or checkpoint folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--weights", choices=["ema", "raw"], default="ema", help="averaged or raw")
    parser.add_argument(
        "--with_autoencoder",
        action="store_true",
        help="copy the frozen autoencoder too; its licence is its makers'",
    )
    parser.add_output_arguments()
    options = parser.parse_args(arguments)
    from sdevid import export

    written = export.export(
        options.model_path,
        options.output_dir,
        options.weights,
        with_autoencoder=options.with_autoencoder,
    )
    say(f"{written} ({written.stat().st_size / 2**20:.1f} MiB)")
    return 0
