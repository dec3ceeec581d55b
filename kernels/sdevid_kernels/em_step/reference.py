"""One Euler-Maruyama step of a controlled SDE and its share of the path KL."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "batch *shape"]
LEAST_WIDTH = 1e-9  # of a posterior's r, whose logarithm is taken


def control_energy(control: Tensor, dt: Tensor) -> Tensor:
    """Compute 1/2 u^2 dt of each component, in nats."""
    return 0.5 * control.square() * dt


def width_kl(width: Tensor, dt: Tensor) -> Tensor:
    """Compute 1/2 (r^2 - 1) - log r of each component, in nats; a step of no time has none.

    An r that underflowed to 0 counts as 1e-9, as in the kernel, so that the sum stays finite.
    """
    return (0.5 * (width.square() - 1) - width.clamp(min=LEAST_WIDTH).log()) * (dt > 0)


def em_step(
    z: State,
    drift: State,
    diffusion: State,
    dt: Float[Tensor, " batch"],
    dw: State,
    control: State | None = None,
    width: State | None = None,
) -> tuple[State, Float[Tensor, " batch"]]:
    """Compute z' = z + (h + g u) dt + r g dW, and the step's KL in nats.

    The KL is 1/2 |u|^2 dt + sum(1/2 (r^2 - 1) - log r): of the Euler-Maruyama chain with width r,
    or Girsanov's where `width` is absent (r = 1). `control` absent is u = 0, the prior. `dt` is one
    a clip; `dw` has standard deviation sqrt(dt). A step of no time has no KL. Coefficients may be
    16 bit; state and sums are float32, or float64 where `z` is.
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    d = dt.to(wide).view(-1, *[1] * (z.dim() - 1))
    g, dw = diffusion.to(wide), dw.to(wide)
    kl = torch.zeros_like(z, dtype=wide)
    total = drift.to(wide)
    if control is not None:
        u = control.to(wide)
        total = total + g * u
        kl = kl + control_energy(u, d)
    scale = g
    if width is not None:
        r = width.to(wide)
        scale = g * r
        kl = kl + width_kl(r, d)
    end = z.to(wide) + total * d + scale * dw
    return end.to(z.dtype), kl.flatten(1).sum(1)
