"""Walks the grid of a path and gathers its KL."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import path_kl, solvers
from sdevid.sde.noise import Brownian


class Step(NamedTuple):
    """Coefficients at one grid point, each (batch, *shape) or one that broadcasts to it."""

    drift: Tensor  # of the prior, latent units per second
    diffusion: Tensor  # g, latent units per sqrt(second)
    control: Tensor | None = None  # u, per sqrt(second); None: the prior itself
    width: Tensor | None = None  # r in (0, 1]; None: 1, the continuous bound


class Path(NamedTuple):
    """A solved path."""

    states: Float[Tensor, "batch points *shape"]  # at every grid point, the first included
    kl: Float[Tensor, " batch"]  # of the path, nats
    control_energy: Float[Tensor, " batch"]  # 1/2 sum |u|^2 dt, the control's part of `kl`, nats


Coefficients = Callable[[Tensor, int], Step]


def chain(
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Float[Tensor, "batch steps *shape"] | Brownian,
    coefficients: Coefficients,
) -> Path:
    """The Euler-Maruyama chain z' = z + (h + g u) d + r g dW from `start` along `ticks`.

    `coefficients(z, k)` gives step k's drift, diffusion, control and width. A step between equal
    ticks leaves state and KL as they are, which pads clips of fewer points. State and sums are
    float32 (float64 where `start` is). Raises UserError where shapes or times do not fit.
    """
    dw = noise.increments(ticks) if isinstance(noise, Brownian) else noise
    _check(start, ticks, dw)
    dt = types.seconds(ticks.diff(dim=1)).to(start.device, start.dtype)
    spans = dt.view(*dt.shape, *[1] * (start.dim() - 1)).unbind(1)
    z, states, taken = start, [start], []
    for k, increment in enumerate(dw.to(start.dtype).unbind(1)):
        step = coefficients(z, k)
        z = solvers.chain_step(z, *step, spans[k], increment)
        states.append(z)
        taken.append(step)
    return Path(torch.stack(states, 1), *_kl(taken, states[0], dt))


def _kl(taken: list[Step], like: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    energy = kl = like.new_zeros(len(like))
    controls = [step.control for step in taken if step.control is not None]
    if controls:
        energy = kl = path_kl.control_energy(_stack(controls, like), dt)
    widths = [step.width for step in taken if step.width is not None]
    if widths:
        kl = kl + path_kl.width_kl(_stack(widths, like), dt)
    return kl, energy


def _stack(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack([part.expand_as(like) for part in parts], 1)


def _check(start: Tensor, ticks: Tensor, dw: Tensor) -> None:
    steps = ticks.shape[-1] - 1
    if ticks.dim() != 2 or steps < 0 or len(ticks) != len(start):
        raise UserError(
            f"ticks have shape {tuple(ticks.shape)}, but a start of shape {tuple(start.shape)} "
            f"needs ({len(start)}, points) with at least one point"
        )
    expected = (len(start), steps, *start.shape[1:])
    if tuple(dw.shape) != expected:
        raise UserError(
            f"noise has shape {tuple(dw.shape)}, but {steps} steps from a start of shape "
            f"{tuple(start.shape)} need {expected}"
        )
    if not start.dtype.is_floating_point or start.dtype.itemsize < 4:
        raise UserError(
            f"start is {start.dtype}, but a state in 16 bits has the wrong law; "
            "convert it to float32 (networks may stay in bf16)"
        )
    if dw.device != start.device:
        raise UserError(f"noise is on {dw.device} but start is on {start.device}; move one of them")
