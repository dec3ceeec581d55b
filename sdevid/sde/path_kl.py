"""KL between the posterior and the prior path measure, in nats per clip.

Two bounds. Continuous: Girsanov's 1/2 E int |u|^2 dt for two SDEs that share their diffusion.
Chain: the exact KL of two Euler-Maruyama chains, whose posterior step N(z + (h + g u) d, r^2 g^2 d)
may also be narrower than the prior's N(z + h d, g^2 d):

    1/2 |u|^2 d + sum(1/2 (r^2 - 1) - log r)

which is Girsanov's where r = 1. Sums are float32 or wider.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def control_energy(
    control: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """1/2 sum |u|^2 dt along each path, in nats. `control` is per sqrt(second), `dt` in seconds."""
    wide = control.to(torch.promote_types(control.dtype, torch.float32)).flatten(2)
    return 0.5 * torch.einsum("bsi,bsi,bs->b", wide, wide, dt.to(wide.dtype))


def width_kl(
    width: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """sum(1/2 (r^2 - 1) - log r) along each path, in nats; a step of no time adds none."""
    wide = width.to(torch.promote_types(width.dtype, torch.float32)).flatten(2)
    steps = (0.5 * (wide.square() - 1) - wide.log()).sum(2)
    return steps.mul((dt > 0).to(wide.dtype)).sum(1)
