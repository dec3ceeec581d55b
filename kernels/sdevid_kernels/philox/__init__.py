"""Counter-based standard normals: a pure function of seed, clip serial, cell and component."""

from __future__ import annotations

from torch import Tensor

from sdevid_kernels import runtime
from sdevid_kernels.philox import reference


def normals(
    seed: int,
    serial: Tensor,
    cell: Tensor,
    size: int,
    tag: int = 0,
    setting: runtime.Setting = "auto",
) -> Tensor:
    """Draw standard normals (batch, steps, size) at `cell` (batch, steps); see the reference."""
    if runtime.backend(serial.device, setting) == "triton":
        from sdevid_kernels.philox import kernel

        return kernel.normals(seed, serial, cell, size, tag)
    return reference.normals(seed, serial, cell, size, tag)


def uniforms(
    seed: int,
    serial: Tensor,
    cell: Tensor,
    size: int,
    tag: int = 0,
    setting: runtime.Setting = "auto",
) -> Tensor:
    """Draw uniforms in [0, 1) (batch, steps, size) at `cell` (batch, steps); see the reference."""
    if runtime.backend(serial.device, setting) == "triton":
        from sdevid_kernels.philox import kernel

        return kernel.uniforms(seed, serial, cell, size, tag)
    return reference.uniforms(seed, serial, cell, size, tag)
