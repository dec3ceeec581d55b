"""Reversible Heun's first half: the companion state's move (Kidger et al. 2021, algorithm 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid_kernels.heun_step.reference import Rates

State = Float[Tensor, "batch *shape"]


def move_companion(
    z: State, companion: State, rates: Rates, dt: Float[Tensor, " batch"], dw: State
) -> State:
    """2 z - companion + (h + g u) dt + g dW, with the rates at `companion`.

    The second half is heun_step with the rates at both companions. `dt` in seconds, one a clip.
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    d = dt.to(wide).view(-1, *[1] * (z.dim() - 1))
    g, total = rates.diffusion.to(wide), rates.drift.to(wide)
    if rates.control is not None:
        total = total + g * rates.control.to(wide)
    moved = 2 * z.to(wide) - companion.to(wide) + total * d + g * dw.to(wide)
    return moved.to(z.dtype)
