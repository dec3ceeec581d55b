"""`sdevid train-autoencoder`: train an autoencoder on the frames of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sdevid.command_line import CommandParser, command_parser
from sdevid.console import say
from sdevid.errors import UserError
from sdevid.owner import own

_HELP = {
    "latent_channels": "channels of a latent",
    "factor": "pixels a side of one latent, a power of two",
    "width": "channels of the first stage, a multiple of 8; doubled at each halving, up to 4 times",
    "frames": "frames seen in training",
    "batch_size": "frames a step",
    "learning_rate": "highest learning rate of AdamW",
    "kl_weight": "weight of the divergence a latent from N(0, 1)",
    "adversarial_weight": "weight of a discriminator of patches; 0: none",
    "seed": "of weights and of the order of frames",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write a folder for encoder.frozen. Raises UserError where that cannot be."""
    from sdevid.autoencoder.training import Options

    options = _parser(Options()).parse_args(arguments)
    folder: Path = options.output_dir
    from sdevid.autoencoder import folder as folders
    from sdevid.autoencoder import training
    from sdevid.data.shards import open_shards

    chosen = {field.name: getattr(options, field.name) for field in fields(Options)}
    with own(folder, "output_dir", say):
        if (folder / "config.json").exists():
            raise UserError(
                f"--output_dir {folder} holds an autoencoder already; give another folder"
            )
        index = open_shards(options.data, options.split)
        splits = index.dataset["splits"]
        held_out = open_shards(options.data, "val") if "val" in splits else None
        quality = training.train(index, held_out, Options(**chosen), folder)
    of = "split val" if held_out is not None else f"split {options.split} itself"
    fingerprint = folders.identity(folder)["fingerprint"]
    say(f"{folder}, fingerprint {fingerprint}: PSNR {quality:.2f} dB on {of}")
    return 0


def _parser(defaults: object) -> CommandParser:
    parser = command_parser(
        "train-autoencoder",
        "Train diffusers' AutoencoderKL on the frames of shards, for encoder.frozen.",
        "sdevid train-autoencoder --data data/mine --output_dir weights/mine --latent_channels 8",
    )
    parser.add_argument("--data", required=True, help="folder of shards, or its URL")
    parser.add_argument("--split", default="train", help="split that is trained on")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write")
    for name, text in _HELP.items():
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    parser.add_output_arguments()
    return parser
