"""Heun's corrector with its noise and its share of the path KL."""

from __future__ import annotations

import torch
from torch import Tensor

from sdevid_kernels import runtime
from sdevid_kernels.em_step import Key, increment
from sdevid_kernels.heun_step import reference
from sdevid_kernels.heun_step.reference import Rates


def heun_step(
    z: Tensor,
    first: Rates,
    second: Rates,
    dt: Tensor,
    noise: Key | Tensor,
    setting: runtime.Setting = "auto",
) -> tuple[Tensor, Tensor]:
    """The reference's step. `noise`: dW itself, or the key of a cell that the step spans exactly.

    Raises ValueError where a shape, device or value does not fit (`runtime.check_step`), or only
    one end has a control.
    """
    for end in (first, second):
        given = {"drift": end.drift, "control": end.control}
        runtime.check_step("heun_step", z, dt, noise, {"diffusion": end.diffusion}, **given)
    if (first.control is None) != (second.control is None):
        raise ValueError("heun_step: one end has a control and the other has none; give both")
    if runtime.backend(z.device, setting) == "triton" and z.dtype == torch.float32:
        from sdevid_kernels.heun_step import kernel

        return kernel.run(z, first, second, dt, noise)
    dw = noise if isinstance(noise, Tensor) else increment(z, dt, noise)
    return reference.heun_step(z, first, second, dt, dw)
