"""What is evaluated, on what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdevid import export
from sdevid.checkpoint import Weights
from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.folder import Access
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.errors import UserError
from sdevid.evaluate.observe import Observer, observer
from sdevid.evaluate.progress import batches, evenly
from sdevid.models.video_model import VideoModel
from sdevid.sample.sampler import as_pixels
from sdevid.sample.write import Pixels
from sdevid.types import frame_ticks

ROWS = 32  # videos generated at once, at most
VALUES = 2**25  # of pixels generated at once, at most


@dataclass(frozen=True)
class Subject:
    """A model, held-out clips and those of its training."""

    model: VideoModel
    config: Config
    index: ShardIndex
    training: ShardIndex
    clips: range  # numbers in the index
    seed: int

    @property
    def truth(self) -> dict[str, Any] | None:
        """Of drawn video: its SDE and units, or its generator."""
        return self.index.dataset.get("truth")

    @cached_property
    def observer(self) -> Observer | None:
        """Follows what moves in drawn video."""
        known = self.truth is not None and "axes" in self.truth
        return observer(self.truth) if known and self.truth else None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def generate(self, videos: range, frames: int, fps: float, title: str) -> Pixels:
        """Videos made of nothing, `videos` being their serials: the same ones at any frame rate."""
        ticks = frame_ticks(frames, fps).to(self.device)
        values = frames * self.config.frame_size**2 * self.config.channels
        made = []
        for part in batches(videos, max(1, min(ROWS, VALUES // values)), title):
            serial = torch.tensor(part, device=self.device)
            video = self.model.sample(ticks.expand(len(part), -1), seed=self.seed, serial=serial)
            made.append(as_pixels(video))
        return np.concatenate(made)

    def real(self, clips: range, title: str) -> Pixels:
        """Held-out clips with these numbers in the index."""
        parts = batches(clips, 64, title)
        return np.concatenate(
            [stream.fixed(self.index, self.config, part).video.numpy() for part in parts]
        )


def open_subject(
    model_path: Path, data: str | None, split: str, weights: Weights, num_clips: int, seed: int
) -> Subject:
    """Load the model and open its shards. UserError where they do not fit."""
    if num_clips < 1:
        raise UserError(f"--num_clips is {num_clips}, but must be 1 or more")
    model, config = export.load(model_path, weights)
    folder = data or config.data
    access = Access.of(config)
    held_out = open_shards(folder, split, access)
    training = open_shards(folder, config.split, access)
    stream.check(held_out, config)
    stream.check(training, config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    clips = evenly(num_clips, len(held_out))
    return Subject(model, config, held_out, training, clips, seed)
