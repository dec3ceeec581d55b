"""Track the bright disc in drawn or generated video: its place, radius and angle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.statistics.estimate import Floats

FAINT = 0.1  # a frame whose peak is no more than this above its ground shows no disc
CUT = 0.25  # share of the peak, over the ground, below which a pixel counts as ground


def positions(video: NDArray[np.uint8], half_width: float) -> Floats:
    """Locate the light in uint8 frames (..., height, width, channels): centroids (..., 2).

    Axis 0 is to the right, axis 1 down, from the middle of the frame, in units of which
    `half_width` make half a frame's width. The ground (the median) and a quarter of the peak
    above it are taken off first, so that a dim haze does not pull the centroid to the middle.
    NaN where nothing stands out.
    """
    light, ground, contrast = _light(video)
    height, width = light.shape[-2:]
    weight = np.maximum(light - ground - CUT * contrast, 0).astype(np.float64)
    mass = weight.sum(axis=(-2, -1))
    mass = np.where((contrast[..., 0, 0] > FAINT) & (mass > 0), mass, np.nan)
    scale = half_width / (width / 2)
    right = (np.arange(width) + 0.5 - width / 2) * scale
    down = (np.arange(height) + 0.5 - height / 2) * scale
    x = weight.sum(axis=-2) @ right / mass
    y = weight.sum(axis=-1) @ down / mass
    return np.stack([x, y], axis=-1)


def radii(video: NDArray[np.uint8], half_width: float) -> Floats:
    """Measure the disc's radius (..., 1) in uint8 frames, in the units of `positions`.

    It is that of a circle of the disc's area. A pixel counts by how far its contrast lies between a
    quarter and three quarters of the peak's, which leaves the area of a straight soft edge as it
    is. NaN where nothing stands out.
    """
    light, ground, contrast = _light(video)
    share = (light - ground) / np.maximum(contrast, 1e-6)
    area = np.clip((share - CUT) / (1 - 2 * CUT), 0, 1).sum(axis=(-2, -1), dtype=np.float64)
    seen = contrast[..., 0, 0] > FAINT
    scale = half_width / (light.shape[-1] / 2)
    return np.where(seen, scale * np.sqrt(area / np.pi), np.nan)[..., None]


def angles(video: NDArray[np.uint8], half_width: float) -> Floats:
    """Measure the disc's angle (..., 1) about the frame's middle; 0 is below, pi/2 to the right."""
    x, y = np.moveaxis(positions(video, half_width), -1, 0)
    angle: Floats = np.arctan2(x, y)[..., None]
    return angle


def unwrapped(paths: Floats) -> Floats:
    """Remove jumps of a whole turn from angles (paths, frames), between frames not NaN."""
    continuous, last = paths.copy(), np.zeros(len(paths))
    for frame in continuous.T:
        frame -= 2 * np.pi * np.round((frame - last) / (2 * np.pi))
        last = np.where(np.isfinite(frame), frame, last)
    return continuous


def _light(video: NDArray[np.uint8]) -> tuple[Any, Any, Any]:
    """Convert to grey in [0, 1]; give the ground (the median) and the peak's height above it."""
    light = video.mean(axis=-1, dtype=np.float32) / 255
    flat = light.reshape(*light.shape[:-2], -1)
    ground = np.median(flat, axis=-1)[..., None, None]
    return light, ground, flat.max(axis=-1)[..., None, None] - ground
