"""Where the contrast of a frame lies: a position that any video has."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def centre_of_contrast(frames: NDArray[Any]) -> Floats:
    """Compute the centre (x, y), in pixels, of each frame (..., height, width, channels).

    Returns (..., 2). Each pixel weighs as the square of its distance from its frame's median, so
    that a thing on a plain ground stands out; one that was not observed (NaN) weighs nothing. NaN
    for a frame of one value.
    """
    values = frames.astype(np.float64).mean(axis=-1)
    height, width = values.shape[-2:]
    with warnings.catch_warnings():  # frames of which nothing was observed
        warnings.simplefilter("ignore", RuntimeWarning)
        ground = np.nanmedian(values, axis=(-2, -1), keepdims=True)
    weight = np.nan_to_num(np.square(values - ground))
    total = weight.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore"):
        x = (weight.sum(axis=-2) * np.arange(width)).sum(axis=-1) / total
        y = (weight.sum(axis=-1) * np.arange(height)).sum(axis=-1) / total
    return np.stack([x, y], axis=-1)
