"""Tensor types, the axis order and the units that every room shares.

Axes always come in this order: batch, time, channels, height, width. Video on the wire is uint8
(batch, time, height, width, channels); inside the model it is float32 in [0, 1].

Time is counted in integer ticks, so that two frame times are compared exactly. The unit of time
is the training frame interval (`Config.time_unit`, seconds), and a tick 1/76,800 of it: 76,800 =
2**10 * 3 * 5**2 is divisible by the usual numbers of substeps and ratios of frame rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int64, UInt8
from torch import Tensor

TICKS_PER_UNIT = 76_800

Video = (  # as moved: uint8, or float32 in its transform's range with NaN where nothing was seen
    UInt8[Tensor, "batch time height width channels"]
    | Float32[Tensor, "batch time height width channels"]
    | Float16[Tensor, "batch time height width channels"]  # latents, as data/latents.py says
)
Frames = Float[Tensor, "batch time channels height width"]  # in [0, 1], or latents of them
Ticks = Int64[Tensor, "batch time"]  # rising along time
Embedding = Float16[np.ndarray, "tokens width"]  # of one caption, by a frozen encoder
Serial = Int64[Tensor, " batch"]  # a clip's place in the order of training; keys its noise


@dataclass(frozen=True)
class Damage:
    """A clip that could not be read, so that another took its serial."""

    serial: int
    shard: str
    key: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Clips on their way into the model."""

    video: Video
    ticks: Ticks
    serial: Serial
    keys: tuple[str, ...]
    captions: tuple[str, ...]
    damage: tuple[Damage, ...] = ()  # what was met while it was put together
    embeddings: tuple[Embedding, ...] | None = None  # of the captions, where shards gave them

    @property
    def values(self) -> np.ndarray:
        """The video as moved: uint8, or float32 with NaN where nothing was observed."""
        values: np.ndarray = self.video.numpy()
        return values

    @property
    def pixels(self) -> UInt8[np.ndarray, "batch time height width channels"]:
        """The video for the eye: uint8, what was not observed black."""
        if self.video.dtype == torch.uint8:
            return self.video.numpy()
        scaled = (self.video.nan_to_num(0.0).clamp(0, 1) * 255).round()
        return scaled.to(torch.uint8).numpy()


def frame_ticks(num_frames: int, rate: float | Fraction = 1) -> Int64[Tensor, " time"]:
    """Compute the times of `num_frames` frames at `rate` a unit of time, in ticks from 0."""
    return torch.tensor(_frame_ticks(num_frames, Fraction(rate)), dtype=torch.int64)


@lru_cache(256)
def _frame_ticks(num_frames: int, rate: Fraction) -> list[int]:
    return [round(i * TICKS_PER_UNIT / rate) for i in range(num_frames)]


def units(ticks: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert ticks to float32 units of time. Take differences of ticks first: they are exact."""
    return (ticks.to(torch.float64) / TICKS_PER_UNIT).to(torch.float32)


def present_frames(video: Video | Frames) -> Bool[Tensor, "batch time"]:
    """Find the frames of which some value was observed, not NaN."""
    return video.isnan().logical_not().flatten(2).any(2)


def as_frames(video: Video) -> Frames:
    """Convert video to float32 frames, channels before height and width; uint8 to [0, 1]."""
    frames = video.permute(0, 1, 4, 2, 3)
    return frames if video.dtype == torch.float32 else frames.to(torch.float32) / 255
