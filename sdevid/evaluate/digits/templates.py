"""Digits found by their own templates: where each fits best, and how much of it is there.

No network judges: a clip's digits are cut from its own real frames, whose corners are known. The
least of each pixel over all frames frees a digit from the one that passes over it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sdevid.evaluate.statistics.estimate import Floats
from sdevid.sample.write import Pixels

LOST = 0.1  # a digit explained by less is looked for in the middle of the frame


class Fit(NamedTuple):
    """Digits in frames (n,)."""

    place: Floats  # (n, digits, 2), the middle (x, y) in pixels of the drawn frame
    explained: Floats  # (n, digits), share of a digit's squared values that is there; 1 is all


def cut(frames: Pixels, middle: Floats, side: int, frame_side: int) -> Tensor:
    """Cut the digits (digits, side, side) from real `frames` with middles (time, digits, 2)."""
    return cut_at(_grey(frames, frame_side), np.rint(middle - side / 2).astype(int), side)


def cut_at(real: Tensor, corners: NDArray[np.int_], side: int) -> Tensor:
    """Cut the digits from real frames (time, height, width) with corners (time, digits, 2)."""
    digits = []
    for path in np.moveaxis(corners, 1, 0):
        crops = [real[t, y : y + side, x : x + side] for t, (x, y) in enumerate(path[: len(real)])]
        digits.append(torch.stack(crops).amin(0))
    return torch.stack(digits)


def fit(frames: Pixels, digits: Tensor, frame_side: int) -> Fit:
    """Find each of the `digits` in each of the frames (n, height, width, channels)."""
    return find(_grey(frames, frame_side), digits)


@torch.no_grad()
def find(frames: Tensor, digits: Tensor) -> Fit:
    """Find each of the `digits` in each of the frames (n, side, side), in [0, 1].

    Of all places the one is taken with the greatest 1 - |frame - digit|^2 / |digit|^2 over the
    digit's square.
    """
    side, frame_side = digits.shape[-1], frames.shape[-1]
    drawn = frames[:, None]
    energy = digits.square().sum((1, 2)).clamp(min=1e-6).view(1, -1, 1, 1)
    cross = functional.conv2d(drawn, digits[:, None])
    inside = functional.conv2d(drawn.square(), torch.ones(1, 1, side, side))
    share = (2 * cross - inside) / energy
    best, at = share.flatten(2).max(2)
    corner = torch.stack([at % share.shape[3], at // share.shape[3]], dim=2).float()
    middle = torch.full((), (frame_side - side) / 2)
    place = torch.where(best[..., None] < LOST, middle, corner) + side / 2
    return Fit(place.double().numpy(), best.double().numpy())


def _grey(frames: Pixels, frame_side: int) -> Tensor:
    """Give frames (n, height, width, channels) as (n, side, side) in [0, 1], at the drawn size."""
    grey = torch.from_numpy(frames).float().mean(3)[:, None] / 255
    if grey.shape[-1] != frame_side:
        grey = functional.interpolate(
            grey, size=(frame_side, frame_side), mode="bilinear", align_corners=False
        )
    return grey[:, 0]
