"""One step function a scheme, declared with its order and calculus."""

from __future__ import annotations

import torch
from torch import Tensor


def chain_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
    dt: Tensor,
    dw: Tensor,
) -> Tensor:
    """z + (h + g u) dt + r g dW: Euler-Maruyama of a controlled SDE whose noise has width r.

    `control` None is u = 0, `width` None is r = 1. `dt` in seconds broadcasts over the state, `dw`
    has standard deviation sqrt(dt). Coefficients may be 16 bit; the sum is in the state's type.
    """
    diffusion = diffusion.to(z.dtype)
    total = drift.to(z.dtype)
    if control is not None:
        total = torch.addcmul(total, diffusion, control.to(z.dtype))
    scale = diffusion if width is None else diffusion * width.to(z.dtype)
    return torch.addcmul(torch.addcmul(z, total, dt), scale, dw)
