"""The birth: a Follmer process from 0 in unit time, its chain and the exact bound of that chain.

In unit time s, with l = 1 - s left,

    dX = (E[y | X_s] - X) / l ds + dB,    X_0 = 0

ends at a draw of y (Follmer 1985). Given y it is the Brownian bridge X_s = s y + sqrt(s l) xi.
On a grid 1 = l_0 > .. > l_{K-1} > l_K = 0 the prior steps by N(X + (Y - X) d_k / l_k, d_k), where Y
is the predicted endpoint and d_k = l_k - l_{k+1}; the last step is N(Y, l_{K-1}). The bridge steps
by N(X + (y - X) d_k / l_k, rho_k d_k), rho_k = l_{k+1} / l_k. The prior chain's bound is exact:

    -log p(y) <= E[ sum_k w_k |y - Y(X_k)|^2 ] + D/2 (log 2 pi - sum_{k < K-1} (1 - rho_k))

with w_k = d_k / (2 l_k^2): the terms D/2 (rho - 1 - log rho) of the steps and D/2 log(2 pi l_{K-1})
of the end, whose logarithms cancel. Values are in units in which y has about unit variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.errors import UserError

Steps = Float[Tensor, "batch steps *shape"]
Remaining = Float[Tensor, "batch steps"]  # l at each of the states
Predict = Callable[[Steps, Remaining], Steps]  # (X, l) to the predicted endpoint Y


class Schedule(NamedTuple):
    """The chain's grid in unit time."""

    remaining: Float[Tensor, " steps"]  # l_k before step k; the first is 1
    duration: Float[Tensor, " steps"]  # d_k; they sum to 1
    taken: float  # sum of 1 - rho_k over the steps but the last, known to the host

    @property
    def weight(self) -> Float[Tensor, " steps"]:
        """w_k, nats per squared error of the predicted endpoint."""
        return self.duration / (2 * self.remaining.square())

    @property
    def share(self) -> Float[Tensor, " steps"]:
        """1 - rho_k: the share of the remaining time that step k takes; 1 for the last."""
        return self.duration / self.remaining


def schedule(steps: int, last: float, device: torch.device | str = "cpu") -> Schedule:
    """Build a grid of `steps` steps whose remaining times fall geometrically from 1 to `last`.

    Raises UserError where there is no step or `last` lies outside (0, 1).
    """
    if steps < 1:
        raise UserError(
            f"birth.steps is {steps}, but a birth takes a step at least; give 1 or more"
        )
    if not 0 < last < 1:
        raise UserError(
            f"birth.last is {last:g}, but it is the share of the birth's time left before the last "
            "step; give a value between 0 and 1, e.g. 0.02"
        )
    exponent = torch.linspace(0.0, 1.0, steps, dtype=torch.float64, device="cpu")
    remaining = torch.cat([last**exponent, torch.zeros(1, dtype=torch.float64, device="cpu")])
    left, duration = remaining[:-1].float(), -remaining.diff().float()
    taken = float((duration / left)[:-1].double().sum())
    return Schedule(left.to(device), duration.to(device), taken)


class Drawn(NamedTuple):
    """Steps of the chain chosen for each clip, and the number that each stands for."""

    step: Int64[Tensor, "batch chosen"]
    weight: Float[Tensor, "batch chosen"]  # 1 / expected number of times that the step is chosen


def draw_steps(grid: Schedule, draws: Float[Tensor, "batch chosen"]) -> Drawn:
    """Draw one step in each of equal parts of the chain's cost, from uniform `draws` in [0, 1).

    A step is chosen in proportion to 1 - rho_k, to which its term is about proportional, so that
    the sum over the chosen steps, each times its `weight`, is unbiased with little variance.
    """
    chosen = draws.shape[1]
    parts = torch.arange(chosen, device=draws.device)
    cumulative = grid.share.to(draws).cumsum(0)
    quantile = (parts + draws) / chosen * cumulative[-1]
    step = torch.searchsorted(cumulative, quantile, right=True).clamp(max=len(cumulative) - 1)
    return Drawn(step, cumulative[-1] / (chosen * grid.share.to(draws)[step]))


def bound(
    y: Float[Tensor, "batch *shape"],
    predict: Predict,
    grid: Schedule,
    noise: Steps,
    drawn: Drawn | None = None,
) -> Float[Tensor, " batch"]:
    """Bound -log p(y) from above in nats, for the chain on `grid`; add log q(y) for KL_0.

    `noise` is standard normal, one draw a step of the chain, or one a step of `drawn`, which makes
    the bound an unbiased estimate from these steps alone.
    """
    if drawn is None:
        step = torch.arange(len(grid.remaining), device=y.device).expand(len(y), -1)
        drawn, width = Drawn(step, torch.ones_like(step, dtype=torch.float32)), 1
    else:
        width = noise.shape[1]
    if noise.shape[:2] != drawn.step.shape:
        raise ValueError(f"noise is for {noise.shape[1]} steps, not {drawn.step.shape[1]}")
    remaining, weight = grid.remaining[drawn.step], grid.weight[drawn.step] * drawn.weight
    total = _constant(grid, y[0].numel()) * torch.ones_like(weight[:, 0])
    parts = (torch.split(part, width, dim=1) for part in (remaining, weight, noise))
    for left, cost, xi in zip(*parts, strict=True):  # all steps: one at a time in memory
        apart = y[:, None] - predict(bridge(y, left, xi), left)
        total = total + (cost * apart.float().square().flatten(2).sum(2)).sum(1)
    return total


def bridge(y: Float[Tensor, "batch *shape"], remaining: Remaining, noise: Steps) -> Steps:
    """Draw X_s = s y + sqrt(s l) xi, a state of the birth that ends at `y`, with time l left."""
    left = _wide(remaining, noise)
    return (1 - left) * y[:, None] + ((1 - left) * left).sqrt() * noise


def log_ratio(
    y: Float[Tensor, "batch *shape"], predict: Predict, grid: Schedule, noise: Steps
) -> Float[Tensor, " batch"]:
    """Compute the importance weight log p(X, y) - log q(X | y) in nats along one bridge to `y`.

    Its mean is minus `bound`, that of its exponential p(y). `noise`: one draw a step but the last.
    """
    x, total = torch.zeros_like(y), torch.zeros_like(y.flatten(1)[:, 0])
    size, last = 0.5 * y[0].numel(), len(grid.remaining) - 1
    for k, (left, d) in enumerate(zip(grid.remaining, grid.duration, strict=True)):
        prediction = predict(x[:, None], left.expand(len(y), 1))[:, 0].float()
        if k < last:
            rho, xi = 1 - d / left, noise[:, k]
            stepped = (y - prediction) * d.sqrt() / left + rho.sqrt() * xi
            total = total + _nats(xi) - _nats(stepped) + size * rho.log()
            x = x + (y - x) * d / left + (rho * d).sqrt() * xi
        else:
            total = total - _nats((y - prediction) / d.sqrt()) - size * (2 * math.pi * d).log()
    return total


class Born(NamedTuple):
    """Endpoints of the birth, and what guidance spent on the way."""

    y: Float[Tensor, "batch *shape"]
    nats: Float[Tensor, " batch"]


def sample(
    predict: Predict,
    grid: Schedule,
    noise: Steps,
    *,
    away: Predict | None = None,
    guidance_scale: float = 1.0,
    temperature: float = 1.0,
) -> Born:
    """Walk the chain from 0 with standard normal `noise`, one draw a step, scaled by `temperature`.

    With `away`, the endpoint is Y' + scale (Y - Y'), Y' that of `away`. Guidance is then a control
    of (scale - 1) (Y - Y') / l, whose cost 1/2 sum_k d_k |u|^2 / T^2 comes back in nats: infinite
    at temperature 0, where a guided path is none of the chain's.
    """
    x = torch.zeros_like(noise[:, 0])
    spent = torch.zeros_like(noise.flatten(1)[:, 0])
    for k, (left, d) in enumerate(zip(grid.remaining, grid.duration, strict=True)):
        at = x[:, None], left.expand(len(x), 1)
        prediction = predict(*at)[:, 0].float()
        if away is not None:
            added = (guidance_scale - 1) * (prediction - away(*at)[:, 0].float())
            prediction = prediction + added
            spent = spent + d * _nats(added / left)
        x = x + (prediction - x) * d / left + temperature * d.sqrt() * noise[:, k]
    return Born(x, over_temperature(spent, temperature))


def over_temperature(nats: Float[Tensor, " batch"], temperature: float) -> Float[Tensor, " batch"]:
    """Divide guidance's cost in nats by the squared `temperature` of the noise; 0 stays 0."""
    if temperature == 1:
        return nats
    if temperature == 0:
        return torch.where(nats > 0, torch.inf, nats)
    return nats / temperature**2


def _constant(grid: Schedule, size: int) -> float:
    """Compute D/2 (log 2 pi - sum over the steps but the last of (1 - rho_k))."""
    return 0.5 * size * (math.log(2 * math.pi) - grid.taken)


def _nats(x: Tensor) -> Float[Tensor, " batch"]:
    return 0.5 * x.square().flatten(1).sum(1)


def _wide(values: Remaining, like: Steps) -> Tensor:
    return values.view(*values.shape, *[1] * (like.dim() - 2))
