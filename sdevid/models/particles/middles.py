"""A thing's place as the middle of what differs from the ground around it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sdevid.models.particles.placing import crops
from sdevid.models.particles.state import Positions

STEPS = 3  # of moving the window to the middle of what it holds
COARSE = 4  # pixels a side of the blocks among which the first window is chosen
LEAST = 1.0  # pixels that must differ for a middle to be taken


class Middle(NamedTuple):
    """Where things were found."""

    place: Positions
    area: Float[Tensor, "batch particles 1"]  # pixels that differ in the window


Different = Float[Tensor, "batch 1 side side"]  # 0 where a frame shows its ground, 1 elsewhere


def different(shown: Float[Tensor, "batch channels side side"], clear: float) -> Different:
    """Say where frames less their ground differ from it: 1/2 at a distance `clear` of colours."""
    square = (shown.square().sum(1, keepdim=True) / clear**2).square()
    return square / (1 + square)


@torch.no_grad()
def middle(seen: Different, place: Positions, patch: int) -> Middle:
    """Move a window of `patch` pixels from `place` to the centroid of what differs within it.

    It stays where it is where nothing differs. No gradient passes.
    """
    axis = torch.arange(patch, device=seen.device) - (patch - 1) / 2
    area = seen.new_zeros(*place.shape[:2], 1)
    for _ in range(STEPS):
        near = crops(seen, place, patch)[:, :, 0]
        area = near.sum((2, 3))[..., None]
        across, down = near.sum(2) @ axis, near.sum(3) @ axis
        shift = torch.stack([across, down], dim=-1) / area.clamp(min=LEAST)
        place = (place + shift).clamp(0, seen.shape[-1] - 1)
    return Middle(place, area)


@torch.no_grad()
def middles(seen: Different, count: int, patch: int) -> Positions:
    """Find `count` things, the one that differs most first; each hides what its window holds."""
    canvas, places = torch.arange(seen.shape[-1], device=seen.device), []
    for _ in range(count):
        blocks = functional.avg_pool2d(seen, COARSE)
        around = patch // COARSE // 2
        pooled = functional.avg_pool2d(blocks, 2 * around + 1, 1, around)
        best, columns = pooled.flatten(1).argmax(1), pooled.shape[-1]
        start = COARSE * (torch.stack([best % columns, best // columns], dim=-1) + 0.5) - 0.5
        place = middle(seen, start[:, None], patch).place
        places.append(place)
        away = (canvas - place[..., None]).abs() > patch / 2  # (batch, 1, 2, side)
        seen = seen * (away[:, :, 0, None] | away[:, :, 1, :, None])
    return torch.cat(places, dim=1)
