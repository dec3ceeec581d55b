"""An SDE from the marginals that it is to have (Bartosh et al. 2025), and curves for marginals.

With z_t = m(t) + s(t) eps the law at each t is N(m, s^2). Of the SDEs with diffusion g that have
these marginals, the one below solves the Fokker-Planck equation: its drift is the velocity at
fixed eps, plus 1/2 g^2 grad log p + 1/2 d(g^2)/dz, where grad log p = -eps / s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


class Moving(NamedTuple):
    """A curve at some times: its value and its derivative in time."""

    value: Float[Tensor, "batch times *shape"]
    rate: Float[Tensor, "batch times *shape"]


def conditional_drift(
    mean: Moving, scale: Moving, eps: Tensor, diffusion: Tensor, slope: Tensor | None
) -> Tensor:
    """Ito drift of the SDE with diffusion g whose marginal at each time is N(mean, scale^2).

    `diffusion` is g at mean + scale eps and `slope` dg/dz there; None where g does not depend on z.
    """
    drift = mean.rate + scale.rate * eps - diffusion.square() * eps / (2 * scale.value)
    return drift if slope is None else drift + diffusion * slope


class Spots(NamedTuple):
    """Where in its intervals a curve is read."""

    place: Int64[Tensor, "batch times"]  # interval between two knots
    share: Float[Tensor, "batch times"]  # of the interval, in [0, 1]
    span: Float[Tensor, "batch times"]  # of the interval, units of time

    def across(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows that index `values` (batch, knots, ...) with `place`; share and span as wide."""
        wide = [*self.place.shape, *[1] * (values.dim() - 2)]
        rows = torch.arange(len(self.place), device=self.place.device)[:, None]
        return rows, self.share.view(wide), self.span.view(wide)


class Curve(NamedTuple):
    """A C1 cubic through knots at irregular times, plus a part that vanishes at the knots.

    The second part is u (1 - u) (b_0 + b_1 x + b_2 x^2), u in [0, 1] across an interval and
    x = 2 u - 1. It may bend at a knot: at an observation the slope of a true posterior mean jumps.
    Axes of the fields: batch, knots (`bump`: intervals, 3), then any. Without a `bump`: the cubic.
    """

    values: Float[Tensor, "batch knots *shape"]
    tangents: Float[Tensor, "batch knots *shape"]  # per unit of time
    bump: Float[Tensor, "batch intervals 3 *shape"] | None = None

    def at(self, spots: Spots) -> Moving:
        """The curve and its rate at `spots`."""
        place, (rows, u, h) = spots.place, spots.across(self.values)
        p0, p1 = self.values[rows, place], self.values[rows, place + 1]
        v0, v1 = h * self.tangents[rows, place], h * self.tangents[rows, place + 1]
        x, hump = 2 * u - 1, u * (1 - u)
        cubic = (1 + 2 * u) * (1 - u) ** 2 * p0 + u**2 * (3 - 2 * u) * p1
        cubic = cubic + hump * ((1 - u) * v0 - u * v1)
        turn = 6 * hump * (p1 - p0) + (1 - u) * (1 - 3 * u) * v0 + u * (3 * u - 2) * v1
        if self.bump is None:
            return Moving(cubic, turn / h)
        b0, b1, b2 = self.bump[rows, place].unbind(2)
        inner = b0 + x * (b1 + x * b2)
        turn = turn - x * inner + hump * 2 * (b1 + 2 * x * b2)
        return Moving(cubic + hump * inner, turn / h)


class Spread(NamedTuple):
    """s(t) > floor: what is left of a state's spread at the knots, and a bridge's in between.

    s^2 = (floor + exp(level))^2 + g^2 h u (1 - u) softplus(p_0 + p_1 x + p_2 x^2), with u, x and h,
    the length of an interval, as in `Curve`. A Brownian bridge of diffusion g is s with
    softplus(p) = 1: its slope is steep at a knot where little is left, as that of a true posterior
    is. Axes of `bridge` as those of a `bump`.
    """

    level: Curve
    bridge: Float[Tensor, "batch intervals 3 *shape"]
    diffusion: Float[Tensor, "batch intervals *shape"]  # g, or what broadcasts to it
    floor: float

    def at(self, spots: Spots) -> Moving:
        """s and its rate at `spots`."""
        place, (rows, u, h) = spots.place, spots.across(self.level.values)
        level = self.level.at(spots)
        above = level.value.exp()
        left = self.floor + above
        p0, p1, p2 = self.bridge[rows, place].unbind(2)
        x, hump = 2 * u - 1, u * (1 - u)
        inner = p0 + x * (p1 + x * p2)
        share_of, variance = functional.softplus(inner), self.diffusion[rows, place].square()
        scale = (left.square() + variance * h * hump * share_of).sqrt()
        turn = variance * (hump * 2 * (p1 + 2 * x * p2) * inner.sigmoid() - x * share_of)
        return Moving(scale, (left * above * level.rate + 0.5 * turn) / scale)


def tangents(
    values: Float[Tensor, "batch knots *shape"], times: Float[Tensor, "batch knots"]
) -> Float[Tensor, "batch knots *shape"]:
    """Slopes in time at knots, of the parabola through each and its neighbours.

    At the ends, and beside intervals of no time, the slope of the one interval there is; 0 where
    there is none.
    """
    span = times.diff(dim=1)
    wide = [*span.shape, *[1] * (values.dim() - 2)]
    h = span.view(wide)
    moving = h > 0
    slope = (values.diff(dim=1) / h.where(moving, torch.ones_like(h))).where(moving, 0.0)
    before = torch.cat([torch.zeros_like(slope[:, :1]), slope], dim=1)
    after = torch.cat([slope, torch.zeros_like(slope[:, :1])], dim=1)
    none = torch.zeros_like(h[:, :1])
    left, right = torch.cat([none, h], dim=1), torch.cat([h, none], dim=1)
    whole = left + right
    part = 0.5 * torch.ones_like(whole)
    # the nearer neighbour weighs more; an absent one (no time) weighs nothing
    inner = (left > 0) & (right > 0)
    weight = torch.where(inner, left / whole.where(whole > 0, 1.0), part)
    mixed = (1 - weight) * before + weight * after
    return torch.where(inner, mixed, before + after)


class Moments(NamedTuple):
    """Where in a clip the times of an objective fall."""

    spots: Spots
    elapsed: Float[Tensor, "batch times"]  # since the first knot, units of time
    weight: Float[Tensor, "batch times"]  # of what is found there, in a mean over a clip's time


def stratified(draws: Float[Tensor, "batch times"], times: Float[Tensor, "batch knots"]) -> Moments:
    """A moment in each of equal parts of every clip's time, from uniform `draws`.

    Within its interval a moment is then drawn toward the end, and weighs as much less: from v to
    1 - (1 - v)^4, with weight 4 (1 - v)^3. A bridge's drift grows as 1 over the time left to it;
    evenly drawn moments meet its last part so seldom that a clipped gradient forgets it.
    `times` are counted from the first knot; they rise, and equal ones at the end are padding.
    """
    count = draws.shape[1]
    parts = torch.arange(count, device=draws.device)
    at = (parts + draws) / count * times[:, -1:]
    last = (times.diff(dim=1) > 0).sum(1, keepdim=True).clamp(min=1) - 1
    place = (at[..., None] >= times[:, None, 1:-1]).sum(2).minimum(last)
    start, end = times.gather(1, place), times.gather(1, place + 1)
    span = (end - start).where(end > start, torch.ones_like(end))
    left = 1 - ((at - start) / span).clamp(0, 1)
    share = 1 - left**4
    return Moments(Spots(place, share, span), start + share * span, 4 * left**3)
