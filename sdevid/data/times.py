"""Which frames of a longer clip are taken: at mixed rates, or at irregular times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.sde.noise import Stream, uniform
from sdevid.types import TICKS_PER_UNIT, Serial, Ticks

_MOST_TICKS = 2**53  # of a clip: what float64 counts one by one

FrameIndices = Int64[np.ndarray, "clips time"]  # of frames, from the first taken


def reach(config: Config) -> int:
    """Compute the frames that a clip must hold: `sequence_length` at the largest stride."""
    return (config.sequence_length - 1) * max(config.frame_strides) + 1


def every_frame(config: Config) -> Config:
    """Copy `config` with consecutive frames: stride 1, no irregular times."""
    return config.model_copy(update={"frame_strides": (1,), "irregular_fraction": 0.0})


def frame_indices(config: Config, serial: Serial) -> FrameIndices:
    """Choose the frames of each serial's clip, a pure function of seed and serial.

    They follow a stride drawn for the clip, or random times within that stride's reach.
    """
    length, strides = config.sequence_length, config.frame_strides
    if strides == (1,):
        return np.tile(np.arange(length), (len(serial), 1))
    draws = uniform(config.seed, serial, Stream.TIMES, (2 + reach(config),)).double().numpy()
    indices = []
    for draw in draws:
        stride = strides[int(draw[0] * len(strides))]
        taken, last = np.arange(length) * stride, (length - 1) * stride
        if draw[1] < config.irregular_fraction and length > 2:
            inner = 1 + np.argsort(draw[2 : 1 + last], kind="stable")[: length - 2]
            taken = np.concatenate([[0], np.sort(inner), [last]])
        indices.append(taken)
    return np.stack(indices)


def recorded(
    config: Config, meta: Mapping[str, Any], taken: Int64[np.ndarray, " time"]
) -> Int64[Tensor, " time"] | None:
    """Read when these frames were, in ticks from the first; None where they are evenly apart.

    Raises ValueError where fewer times are recorded, or frames are too close or too far apart.
    """
    stated = meta.get("times")
    if stated is None:
        return None
    if int(taken[-1]) >= len(stated["ticks"]):
        raise ValueError(f"its KEY.json tells the times of {len(stated['ticks'])} frames alone")
    instants = np.asarray(stated["ticks"], np.float64)[taken] / stated["per_second"]
    apart = np.round((instants - instants[0]) * (TICKS_PER_UNIT / config.time_unit))
    if (np.diff(apart) < 1).any() or apart[-1] > _MOST_TICKS:
        raise ValueError(
            "its KEY.json tells times that are not "
            f"{config.time_unit / TICKS_PER_UNIT:.3g} to "
            f"{_MOST_TICKS * config.time_unit / TICKS_PER_UNIT:.3g} s apart"
        )
    return torch.from_numpy(apart.astype(np.int64))


def ticks(config: Config, taken: FrameIndices) -> Ticks:
    """Convert frame numbers to ticks from the first."""
    return config.frame_ticks(int(taken.max()) + 1)[taken]
