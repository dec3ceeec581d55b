"""Paths that walls reflect: which of the places that fold to one another a path came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.transport import AXES

Walls = Float[Tensor, "batch 8 rows columns"]  # see `walls_of`; cells


def nearest_image(images: Sequence[Tensor], near: Tensor) -> Tensor:
    """Choose of several images of each place, of one shape, the one nearest to `near`."""
    each = torch.stack(list(images))
    nearest = (each - near).abs().argmin(0, keepdim=True)
    return each.gather(0, nearest)[0]


def walls_of(
    middle: Float[Tensor, "batch 2 rows columns"], room: Float[Tensor, "batch 2 rows columns"]
) -> Walls:
    """Lay out what `reflected` needs of places that start at `middle` and stay within `room`."""
    return torch.cat([middle + room, 4 * room, 2 * room, room], dim=1)


def reflected(z: Tensor, walls: Walls) -> tuple[Tensor, Tensor]:
    """Fold the path of a state (q, v) whose first two positions are displacements, in cells.

    They become places from the middle of the picture, inside their room, and their velocities are
    turned as often as walls were met; also return that turn, 1 or -1.
    """
    low, period, half, room = walls.chunk(4, dim=1)
    size = z.shape[1] // 2
    below = half - torch.remainder(z[:, :AXES] + low, period)
    turn = below.sign()
    velocity = turn * z[:, size : size + AXES]
    moved = [room - below.abs(), z[:, AXES:size], velocity, z[:, size + AXES :]]
    return torch.cat(moved, dim=1), turn
