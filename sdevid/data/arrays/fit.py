"""Frames of any type brought to the size and channels of a cut."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdevid.data.spec import BadVideoError, CutSpec
from sdevid.errors import UserError

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Frames = NDArray[Any]  # time, height, width, channels


def check_missing(missing: float | None, dtype: np.dtype[Any], option: str) -> None:
    """Raise UserError where `missing` is no value that `dtype` holds; floats hold any."""
    if missing is None or dtype.kind == "f":
        return
    limits = np.iinfo(dtype)
    if not float(missing).is_integer() or not limits.min <= missing <= limits.max:
        raise UserError(
            f"{option} is {missing:g}, but the arrays hold {dtype}, whole numbers from "
            f"{limits.min} to {limits.max}; give the one that stands for what was not observed"
        )


def fitted(frames: Frames, spec: CutSpec) -> Frames:
    """Crop frames to the middle and resize them to a cut's shape and channels; the type stays."""
    frames = in_channels(frames, spec.channels)
    height, width = frames.shape[1:3]
    rows, columns = spec.frame_shape
    scale = min(Fraction(height, rows), Fraction(width, columns))
    high, wide = round(scale * rows), round(scale * columns)
    top, left = (height - high) // 2, (width - wide) // 2
    frames = frames[:, top : top + high, left : left + wide]
    if (high, wide) == (rows, columns):
        return np.ascontiguousarray(frames)
    return _resized(frames, (rows, columns))


def in_channels(frames: Frames, channels: str) -> Frames:
    """Convert frames to grey or RGB, or keep them as they are.

    Raises BadVideoError for a number of channels that has no such conversion.
    """
    held = frames.shape[3]
    if channels == "keep" or (channels, held) in (("grey", 1), ("rgb", 3)):
        return frames
    if channels == "rgb" and held == 1:
        return np.repeat(frames, 3, axis=3)
    if channels == "grey" and held == 3:
        if (frames == frames[..., :1]).all():
            return frames[..., :1]
        grey = (frames.astype(np.float64) @ _LUMA)[..., None]
        return _cast(grey, frames.dtype)
    raise BadVideoError(f"has {held} channels, which do not make {channels}; take --channels keep")


def _resized(frames: Frames, shape: tuple[int, int]) -> Frames:
    """Resize each channel by averaging over the area of a new pixel; any NaN there makes it NaN."""
    planes = np.moveaxis(frames, 3, 1).astype(np.float32)
    small = np.empty((*planes.shape[:2], *shape), np.float32)
    for index in np.ndindex(*planes.shape[:2]):
        image = Image.fromarray(planes[index])
        small[index] = np.asarray(image.resize(shape[::-1], Image.Resampling.BOX))
    return np.ascontiguousarray(_cast(np.moveaxis(small, 1, 3), frames.dtype))


def _cast(values: Frames, dtype: np.dtype[Any]) -> Frames:
    if dtype.kind in "ui":
        return np.clip(np.round(values), 0, np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)
