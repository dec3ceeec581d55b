"""One Euler-Maruyama step with its noise and its share of the path KL."""

from __future__ import annotations

import torch
from torch import Tensor

from sdevid_kernels import philox, runtime
from sdevid_kernels.em_step import reference

Key = tuple[int, Tensor, Tensor]  # seed, clip serials (batch,), cells of the path (batch,)


def em_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    dt: Tensor,
    noise: Key | Tensor,
    control: Tensor | None = None,
    width: Tensor | None = None,
    setting: runtime.Setting = "auto",
) -> tuple[Tensor, Tensor]:
    """Take one step: the values of `reference.em_step`, by the backend of `z`'s device.

    `noise`: dW itself, or the key of a cell that the step spans exactly. Raises ValueError where a
    shape, device or value does not fit (`runtime.check_step`).
    """
    coefficients = {"drift": drift, "control": control, "width": width}
    runtime.check_step("em_step", z, dt, noise, {"diffusion": diffusion}, **coefficients)
    if runtime.backend(z.device, setting) == "triton" and z.dtype == torch.float32:
        from sdevid_kernels.em_step import kernel

        return kernel.launch_step(z, drift, diffusion, dt, noise, control, width)
    dw = noise if isinstance(noise, Tensor) else increment(z, dt, noise)
    return reference.em_step(z, drift, diffusion, dt, dw, control, width)


def increment(z: Tensor, dt: Tensor, key: Key) -> Tensor:
    """Draw dW of the cell that `key` names, like `z`."""
    seed, serial, cell = key
    eps = philox.reference.normals(seed, serial, cell[:, None], z[0].numel())
    return (eps[:, 0] * dt.sqrt()[:, None]).view_as(z)
