"""Where the bright disc is: tracked positions in drawn or generated video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.measured import Floats

FAINT = 0.1  # a frame whose peak is no more than this above its ground shows no disc
CUT = 0.25  # share of the peak, over the ground, below which a pixel counts as ground


def positions(video: NDArray[np.uint8], half_width: float) -> Floats:
    """Centroids (..., 2) of the light in uint8 frames (..., height, width, channels).

    Axis 0 is to the right, axis 1 down, from the middle of the frame, in units of which
    `half_width` make half a frame's width. The ground (the median) and a quarter of the peak
    above it are taken off first, so that a dim haze does not pull the centroid to the middle.
    NaN where nothing stands out.
    """
    light = video.mean(axis=-1, dtype=np.float32) / 255
    height, width = light.shape[-2:]
    flat = light.reshape(*light.shape[:-2], height * width)
    ground = np.median(flat, axis=-1)[..., None, None]
    contrast = flat.max(axis=-1)[..., None, None] - ground
    weight = np.maximum(light - ground - CUT * contrast, 0).astype(np.float64)
    mass = weight.sum(axis=(-2, -1))
    mass = np.where((contrast[..., 0, 0] > FAINT) & (mass > 0), mass, np.nan)
    scale = half_width / (width / 2)
    right = (np.arange(width) + 0.5 - width / 2) * scale
    down = (np.arange(height) + 0.5 - height / 2) * scale
    x = weight.sum(axis=-2) @ right / mass
    y = weight.sum(axis=-1) @ down / mass
    return np.stack([x, y], axis=-1)
