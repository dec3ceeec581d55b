"""Counter-based standard normals: a pure function of seed, clip serial, cell and component."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdevid_kernels import runtime
from sdevid_kernels.philox import reference
from sdevid_kernels.philox.reference import Draw


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


def together(
    seed: int, serial: Tensor, draws: Sequence[Draw], setting: runtime.Setting = "auto"
) -> list[Tensor]:
    """Make several draws at cell 0, each (batch, size) float32; with Triton in one launch."""
    if runtime.backend(serial.device, setting) == "triton":
        from sdevid_kernels.philox import kernel

        return kernel.together(seed, serial, draws)
    cell = serial.new_zeros(len(serial), 1)
    functions = (reference.uniforms, reference.normals)
    return [
        functions[is_normal](seed, serial, cell, size, tag)[:, 0] for size, tag, is_normal in draws
    ]
