"""Observation noise that grows with the time from the observed frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.models.protocols import Likelihood
from sdevid.types import Ticks, units

_LEAST = 1e-3  # of a training frame interval, so that at an observed frame the scale is not 0


@dataclass(frozen=True)
class GrowingNoise:
    """A likelihood whose scale is `level` times a power of the time from the observed frames.

    Time is in training frame intervals, and between two observed frames that of a Brownian bridge,
    so that the scale is the same from either end.
    """

    likelihood: Likelihood
    level: float  # of the likelihood's own scale, one frame after the last observed one
    growth: float  # the power

    def factor(
        self, ticks: Ticks, observed: Int64[Tensor, "batch observed"]
    ) -> Float[Tensor, "batch time 1 1 1"]:
        """Compute by how much the scale is multiplied at each of `ticks`."""
        factor = growth_factor(time_from(ticks, observed), self.level, self.growth)
        return factor[..., None, None, None]


def growth_factor(time: Float[Tensor, "*times"], level: float, growth: float) -> Tensor:
    """Compute level time^growth."""
    return level * time.clamp(min=_LEAST) ** growth


def time_from(
    ticks: Ticks, observed: Int64[Tensor, "batch observed"]
) -> Float[Tensor, "batch time"]:
    """Compute the time from the observed frames, in training frame intervals.

    After the last that is the time since; between a and b it is (t - a) (b - t) / (b - a); before
    the first it is the time until.
    """
    apart = ticks[..., None] - observed[:, None]
    none = torch.iinfo(apart.dtype).max
    since = torch.where(apart >= 0, apart, none).min(2).values
    until = torch.where(apart <= 0, -apart, none).min(2).values
    both = (since < none) & (until < none)
    one = units(torch.minimum(since, until))
    since, until = (units(torch.where(both, each, 1)) for each in (since, until))
    bridge = since * until / (since + until).clamp(min=_LEAST)
    return torch.where(both, bridge, one)
