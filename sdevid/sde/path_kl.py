"""KL between the posterior and the prior path measure, in nats per clip.

Two bounds. Continuous: Girsanov's 1/2 E int |u|^2 dt for two SDEs that share their diffusion.
Chain: the exact KL of two Euler-Maruyama chains, whose posterior step N(z + (h + g u) d, r^2 g^2 d)
may also be narrower than the prior's N(z + h d, g^2 d):

    1/2 |u|^2 d + sum(1/2 (r^2 - 1) - log r)

which is Girsanov's where r = 1. Sums are float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from sdevid_kernels.em_step import reference
from torch import Tensor


def control_energy(
    control: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """1/2 sum |u|^2 dt along each path, in nats. `control` is per sqrt(time) of `dt`."""
    return _total(reference.control_energy, control, dt)


def width_kl(
    width: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """sum(1/2 (r^2 - 1) - log r) along each path, in nats; a step of no time adds none."""
    return _total(reference.width_kl, width, dt)


def _total(each: Callable[[Tensor, Tensor], Tensor], values: Tensor, dt: Tensor) -> Tensor:
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).flatten(2)
    return each(wide, dt.to(wide.dtype)[..., None]).flatten(1).sum(1)
