"""Walls that reflect things: a box, learnt as what things never leave."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.models.particles.state import Positions
from sdevid.models.reflection import nearest_image

OUTSIDE = 0.002  # share of places on each side that may lie beyond a wall


class Reflected(NamedTuple):
    """Places inside the walls, and 1 or -1 by which velocities are turned."""

    place: Positions
    turn: Positions


class Walls(nn.Module):
    """A box [low, high] along x and y, pixels.

    A chain that is reflected is one that is not, folded at the walls: its divergence is that of
    the unfolded steps.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.middle = (side - 1) / 2
        self.reach = nn.Parameter(torch.ones(2, 2))  # low and high, x and y; half sides

    @property
    def box(self) -> Float[Tensor, "2 2"]:
        """Low and high walls along x and y, pixels."""
        return self.middle * (1 + _sides(self.reach) * self.reach.detach())

    def fold(self, place: Positions) -> Reflected:
        """Reflect places once at the wall that they lie beyond."""
        low, high = self.box
        below, above = place < low, place > high
        inside = torch.where(below, 2 * low - place, torch.where(above, 2 * high - place, place))
        return Reflected(inside, 1 - 2 * (below | above).to(place.dtype))

    def unfold(self, place: Positions, expected: Positions) -> Positions:
        """Choose of the places that fold to `place` the one nearest to what is expected."""
        low, high = self.box
        return nearest_image([place, 2 * low - place, 2 * high - place], expected)

    def misfit(
        self,
        place: Float[Tensor, "batch time particles 2"],
        presence: Float[Tensor, "batch time particles 1"],
    ) -> Float[Tensor, " batch"]:
        """Compute a loss whose least is at the quantiles `OUTSIDE` of each side, for each clip.

        Places count by their presence; no gradient passes to either.
        """
        far = _sides(place) * (place.detach()[..., None, :] / self.middle - 1)
        beyond = far - self.reach
        missed = (beyond.relu() + OUTSIDE * (-beyond).relu()).mean((3, 4))
        weight = presence.detach()[..., 0]
        return (weight * missed).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)


def _sides(like: Tensor) -> Float[Tensor, "2 1"]:
    """Make the signs of the low and the high walls where `like` lies, without a copy from here."""
    return torch.arange(-1, 2, 2, device=like.device, dtype=like.dtype)[:, None]
