"""A step of reversible Heun: its companion's move, then Heun's corrector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdevid_kernels import runtime
from sdevid_kernels.em_step import Key, increment
from sdevid_kernels.heun_step import heun_step
from sdevid_kernels.heun_step.reference import Rates
from sdevid_kernels.reversible_heun_step import reference


def reversible_heun_step(
    z: Tensor,
    companion: Tensor,
    first: Rates,
    rates_at: Callable[[Tensor], Rates],
    dt: Tensor,
    noise: Key | Tensor,
    setting: runtime.Setting = "auto",
) -> tuple[Tensor, Tensor, Rates, Tensor]:
    """State, companion, the rates at it (`rates_at`), and 1/2 |u|^2 dt by the trapezoid, in nats.

    `first` holds the rates at `companion`; `noise` is dW or the key of the cell that is spanned.
    Raises ValueError where a shape, device or value does not fit (`runtime.check_step`).
    """
    moved = move_companion(z, companion, first, dt, noise, setting)
    second = rates_at(moved)
    after, kl = heun_step(z, first, second, dt, noise, setting)
    return after, moved, second, kl


def move_companion(
    z: Tensor,
    companion: Tensor,
    rates: Rates,
    dt: Tensor,
    noise: Key | Tensor,
    setting: runtime.Setting = "auto",
) -> Tensor:
    """The reference's move; arguments as in `reversible_heun_step`."""
    given = {"companion": companion, "drift": rates.drift, "control": rates.control}
    name, diffusions = "reversible_heun_step", {"diffusion": rates.diffusion}
    runtime.check_step(name, z, dt, noise, diffusions, **given)
    if runtime.backend(z.device, setting) == "triton" and z.dtype == torch.float32:
        from sdevid_kernels.reversible_heun_step import kernel

        return kernel.run(z, companion, rates, dt, noise)
    dw = noise if isinstance(noise, Tensor) else increment(z, dt, noise)
    return reference.move_companion(z, companion, rates, dt, dw)
