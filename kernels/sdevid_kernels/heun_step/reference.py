"""Heun's corrector: the trapezoid in drift and noise, and its share of the path KL."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "batch *shape"]


class Rates(NamedTuple):
    """Coefficients at one end of a step; `control` None is u = 0."""

    drift: Tensor
    diffusion: Tensor
    control: Tensor | None = None


def heun_step(
    z: State, first: Rates, second: Rates, dt: Float[Tensor, " batch"], dw: State
) -> tuple[State, Float[Tensor, " batch"]]:
    """z' = z + sum over both ends of 1/2 [(h + g u) dt + g dW], and 1/4 sum |u|^2 dt in nats.

    Stratonovich calculus; `second` is taken at the predictor, which is em_step with `first` (Heun)
    or reversible Heun's companion. `dt` in seconds, one a clip. Sums are float32 or wider.
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    half = 0.5 * dt.to(wide).view(-1, *[1] * (z.dim() - 1))
    moved, kl = z.to(wide), torch.zeros_like(z, dtype=wide)
    for drift, diffusion, control in (first, second):
        g, total = diffusion.to(wide), drift.to(wide)
        if control is not None:
            u = control.to(wide)
            total = total + g * u
            kl = kl + 0.5 * u.square() * half
        moved = moved + total * half + 0.5 * g * dw.to(wide)
    return moved.to(z.dtype), kl.flatten(1).sum(1)
