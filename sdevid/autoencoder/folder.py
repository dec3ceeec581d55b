"""What an autoencoder's folder says of itself, read from its config.json without its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sdevid.errors import UserError
from sdevid.fingerprint import fingerprint

_STAGES = {  # class: the setting that holds one entry a stage, each but the first half as large
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "num_encoder_blocks",
    "AutoencoderDC": "encoder_block_out_channels",
    "TAEF2": "stages",
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_REMEDY = (
    "give the local folder of a diffusers AutoencoderKL, AutoencoderTiny or AutoencoderDC, one of "
    "`sdevid train-autoencoder` or `sdevid convert-autoencoder`; for a trained model, put the "
    "folder back, or name its new place in the config.yaml beside the weights"
)


@dataclass(frozen=True)
class Description:
    """The kind of an autoencoder and the shape of its latents."""

    kind: str  # its class
    channels: int  # of its pictures
    latent_channels: int
    factor: int  # pixels a side of one latent
    shift: tuple[float, ...]  # what is taken from a raw latent; one for all channels, or each
    scaling: tuple[float, ...]  # and what the rest is multiplied by, for a deviation near 1

    @property
    def has_scale(self) -> bool:
        """Whether it encodes a picture to a mean and a scale, not to one point."""
        return self.kind == "AutoencoderKL"

    @property
    def stored_channels(self) -> int:
        """Channels of a frame's KEY.latent.npy: of the means and, where there are, the scales."""
        return self.latent_channels * (2 if self.has_scale else 1)


def describe(folder: Path) -> Description:
    """Read the description of the autoencoder in `folder`. UserError where there is none."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(settings["_class_name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"autoencoder {folder}: no autoencoder is there ({type(error).__name__}: {error}); "
            f"{_REMEDY}"
        ) from error
    if kind not in _STAGES:
        raise UserError(
            f"autoencoder {folder}: its config.json says _class_name {kind}, which is not read; "
            f"{_REMEDY}"
        )
    try:
        return _description(kind, settings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"autoencoder {folder}: its config.json is out of form ({type(error).__name__}: "
            f"{error}); copy the folder again"
        ) from error


class PictureShape(NamedTuple):
    """Shape of what a model sees and draws for one frame: its pixels, or its latents."""

    channels: int
    height: int
    width: int


def latent_shape(folder: Path, channels: int, frame_size: int, cells: int) -> PictureShape:
    """Compute the latents' shape for frames of this size; the model's map has `cells` a side.

    Raises UserError where `folder` holds no autoencoder, or one of other frames.
    """
    description = describe(folder)
    if description.channels != channels:
        raise UserError(
            f"encoder.frozen is {folder}, an {description.kind} of {description.channels} "
            f"channels, but channels is {channels}; cut the shards with as many, or train one for "
            "them: sdevid train-autoencoder"
        )
    side, rest = divmod(frame_size, description.factor)
    if rest or side < cells:
        raise UserError(
            f"encoder.frozen is {folder}, which makes one latent of {description.factor} x "
            f"{description.factor} pixels, but frame_size is {frame_size} and encoder.map_size "
            f"{cells}: frame_size must be a multiple, and the map no larger than the latents"
        )
    return PictureShape(description.latent_channels, side, side)


def _description(kind: str, settings: dict[str, Any]) -> Description:
    channels, latent_channels = int(settings["in_channels"]), int(settings["latent_channels"])
    if settings.get("out_channels", channels) != channels:
        raise ValueError(f"it makes {settings['out_channels']} channels of {channels}")
    means, deviations = settings.get("latents_mean"), settings.get("latents_std")
    if means is not None and deviations is not None:
        if not len(means) == len(deviations) == latent_channels:
            raise ValueError(f"latents_mean and latents_std are not for {latent_channels} channels")
        shift, scaling = tuple(map(float, means)), tuple(1 / float(sd) for sd in deviations)
    else:
        shift = (float(settings.get("shift_factor") or 0.0),)
        scaling = (float(settings.get("scaling_factor") or 1.0),)
    factor = 2 ** (len(settings[_STAGES[kind]]) - 1)
    return Description(kind, channels, latent_channels, factor, shift, scaling)


def identity(folder: Path) -> dict[str, Any]:
    """Describe the autoencoder by what tells it apart from others, as JSON.

    No path, so that a copy elsewhere is the same one. Raises UserError where the folder holds no
    autoencoder or no safetensors.
    """
    description, weights = describe(folder), sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for kind in _PICKLES for path in folder.glob(kind))
        held = "holds no weights"
        if pickled:
            held = f"has its weights as {pickled[0]}, a pickle, which may run code and is not read"
        raise UserError(
            f"autoencoder {folder} {held}; put its *.safetensors there (save_pretrained writes "
            "them)"
        )
    try:
        return {
            "kind": description.kind,
            "channels": description.channels,
            "latent_channels": description.latent_channels,
            "stored_channels": description.stored_channels,
            "factor": description.factor,
            "fingerprint": fingerprint([folder / "config.json", *weights]),
        }
    except OSError as error:
        raise UserError(f"autoencoder {folder} does not read: {error}") from error
