"""KEY.latent.npy: what a frozen autoencoder makes of a clip's frames, stored beside the clip.

float16 (time, rows, columns, values): of each latent the means of its channels and, where the
autoencoder gives them, their scales; so frames follow each other as they do in a clip's npy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float16

from sdevid.data.entry import ClipEntry
from sdevid.data.payload import ClipVideo, Shape
from sdevid.errors import UserError

if TYPE_CHECKING:
    from sdevid.data.index import ClipTable

LATENT = "latent.npy"  # the member's extension
DTYPE = "float16"
StoredLatents = Float16[np.ndarray, "time rows columns values"]


class PictureEncoder(Protocol):
    """A frozen autoencoder."""

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the autoencoder, as JSON; `shape` reads some of it."""
        ...

    def stored(self, video: ClipVideo) -> StoredLatents:
        """Encode a clip as its latents."""
        ...


def shape(entry: ClipEntry, autoencoder: dict[str, Any]) -> Shape:
    """Compute the shape (time, rows, columns, values) of a clip's latents under `autoencoder`."""
    factor = autoencoder["factor"]
    rows, columns = entry.height // factor, entry.width // factor
    return entry.num_frames, rows, columns, autoencoder["stored_channels"]


def check_all(clips: ClipTable, dataset: Mapping[str, Any], location: str) -> None:
    """Raise UserError where some clips have latents and others, or dataset.json, do not."""
    having, described = clips.clips_with(LATENT), dataset.get("autoencoder") is not None
    if having == (len(clips) if described else 0):
        return
    odd = next(clip.key for clip in clips if (LATENT in clip.members) != described)
    holds = "has none, and dataset.json names an" if described else "has one, and it names no"
    raise UserError(
        f"shards {location} mix latents and pixels: {having} of {len(clips)} clips have a "
        f"{LATENT}; clip {odd} {holds} autoencoder; cut them anew, all with one --autoencoder or "
        "all without"
    )


def check_picture(autoencoder: dict[str, Any], frame_size: int, channels: int, source: str) -> None:
    """Raise UserError where `autoencoder` cannot take frames of this size and kind.

    `source` names it in the message.
    """
    if channels != autoencoder["channels"]:
        raise UserError(
            f"autoencoder {source} is for {autoencoder['channels']} channels, but the frames have "
            f"{channels}; cut with --channels {'rgb' if autoencoder['channels'] == 3 else 'grey'}, "
            "or train one for them: sdevid train-autoencoder"
        )
    if frame_size % autoencoder["factor"]:
        raise UserError(
            f"autoencoder {source} makes one latent of {autoencoder['factor']} pixels a side, but "
            f"frames of {frame_size} are no multiple of that; cut with another --frame_size"
        )
