"""What a model sees and draws for frames: their pixels, or a frozen autoencoder's latents."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.autoencoder import folder as folders
from sdevid.autoencoder.frozen import FrozenAutoencoder
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.sde.noise import Stream, normal
from sdevid.types import Frames, Serial, Video, as_frames

Seen = Float[Tensor, "batch time values rows columns"]  # pixels, or latents of frames


@runtime_checkable
class Pictures(Protocol):
    """Maps frames in [0, 1] to what a model sees of them, and back."""

    def drawn(self, video: Video, serial: Serial) -> Seen:
        """Draw what the model sees of clips in training, by the noise of each clip's serial."""

    def encode(self, frames: Frames) -> Seen:
        """Encode observed frames as the model sees them, without noise."""

    def decode(self, pictures: Seen) -> Frames:
        """Decode what the model draws to frames in [0, 1]."""

    def reconstructed(self, frames: Frames) -> Frames | None:
        """Encode and decode frames, the best that a prediction can reach; None for pixels."""


class Pixels:
    """The frames themselves."""

    def drawn(self, video: Video, serial: Serial) -> Seen:  # noqa: ARG002
        """Convert the video to float32 frames."""
        return as_frames(video)

    def encode(self, frames: Frames) -> Seen:
        """Return the frames."""
        return frames

    def decode(self, pictures: Seen) -> Frames:
        """Return the frames."""
        return pictures

    def reconstructed(self, frames: Frames) -> None:
        """Return None: pixels lose nothing."""


class FrozenPictures:
    """Latents of a frozen autoencoder, loaded when frames are first encoded or decoded.

    Raises UserError where the folder that the config names holds none, or another than it was.
    """

    def __init__(self, config: Config) -> None:
        assert config.encoder.frozen is not None
        self.folder, self.seed = Path(config.encoder.frozen), config.seed
        self._description = folders.describe(self.folder)
        self._fingerprint = config.encoder.frozen_fingerprint
        if self._fingerprint is not None:
            check_fingerprint(self.folder, self._fingerprint)

    @cached_property
    def _autoencoder(self) -> FrozenAutoencoder:
        return FrozenAutoencoder(self.folder)

    def drawn(self, video: Video, serial: Serial) -> Seen:
        """Draw each frame's latents: from those that shards hold (float16), or encoded here."""
        if video.dtype == torch.float16:
            values = video.permute(0, 1, 4, 2, 3).float()
            mean, *scales = torch.split(values, self._description.latent_channels, dim=2)
            scale = scales[0] if scales else None
        else:
            mean, scale = self._encoded(as_frames(video))
        if scale is None:
            return mean
        noise = normal(self.seed, serial, Stream.PICTURE, tuple(mean.shape[1:]))
        drawn: Tensor = mean + scale * noise
        return drawn

    def encode(self, frames: Frames) -> Seen:
        """Encode frames to the latents' means."""
        return self._encoded(frames)[0]

    def decode(self, pictures: Seen) -> Frames:
        """Decode frame by frame, some at a time."""
        self._autoencoder.to(pictures.device)
        frames = self._autoencoder.decode(pictures.flatten(0, 1))
        return torch.unflatten(frames, 0, pictures.shape[:2])

    def reconstructed(self, frames: Frames) -> Frames:
        """Encode frames to the latents' means, and decode those."""
        return self.decode(self.encode(frames))

    def _encoded(self, frames: Frames) -> tuple[Tensor, Tensor | None]:
        self._autoencoder.to(frames.device)
        mean, scale = self._autoencoder.encode(frames.flatten(0, 1))
        shape = frames.shape[:2]
        return (
            torch.unflatten(mean, 0, shape),
            None if scale is None else torch.unflatten(scale, 0, shape),
        )


def check_fingerprint(folder: Path, wanted: str) -> None:
    """Raise UserError where `folder` holds another autoencoder than the one of this fingerprint."""
    fingerprint = folders.identity(folder)["fingerprint"]
    if fingerprint != wanted:
        raise UserError(
            f"encoder.frozen is {folder}, whose autoencoder has the fingerprint {fingerprint}, but "
            f"the model was trained on the latents of {wanted}; put that folder back, or name its "
            "new place in the config.yaml beside the weights"
        )


def build_pictures(config: Config) -> Pictures:
    """Build what `encoder.frozen` names: pixels, or a frozen autoencoder's latents."""
    return Pixels() if config.encoder.frozen is None else FrozenPictures(config)
