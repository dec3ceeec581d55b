"""Walks the grid of a path, saves at frame times, gathers the path's KL, bounds memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from sdevid_kernels import runtime
from sdevid_kernels.em_step import Key, em_step
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import equation, path_kl, reversible, solvers
from sdevid.sde.equation import SDE
from sdevid.sde.grid import Grid, run
from sdevid.sde.noise import Brownian


class Step(NamedTuple):
    """Coefficients at one grid point, each (batch, *shape) or one that broadcasts to it."""

    drift: Tensor  # of the prior, latent units per second
    diffusion: Tensor  # g, latent units per sqrt(second)
    control: Tensor | None = None  # u, per sqrt(second); None: the prior itself
    width: Tensor | None = None  # r in (0, 1]; None: 1, the continuous bound


class Path(NamedTuple):
    """A solved path."""

    states: Float[Tensor, "batch points *shape"]  # at the saved grid points
    kl: Float[Tensor, " batch"]  # of the path, nats
    control_energy: Float[Tensor, " batch"]  # 1/2 sum |u|^2 dt, the control's part of `kl`, nats


Gradient = Literal["backprop", "checkpoint", "reversible"]
Coefficients = Callable[[Tensor, int], Step]


def chain(
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Float[Tensor, "batch steps *shape"] | Brownian,
    coefficients: Coefficients,
    kernels: runtime.Setting = "auto",
) -> Path:
    """The Euler-Maruyama chain z' = z + (h + g u) d + r g dW from `start` along `ticks`.

    States come back at every grid point, the first included. `coefficients(z, k)` gives step k's
    drift, diffusion, control and width. A step between equal ticks leaves state and KL as they are,
    which pads clips of fewer points. State and sums are float32 (float64 where `start` is).
    `kernels`: fused steps on CUDA ("auto"), everywhere, or nowhere ("reference"); the numbers are
    the same up to rounding. A path that is lost comes back as such, in NaNs: what then happens is
    for a trainer's ranks to agree on. Raises UserError where shapes, times or devices do not fit.
    """
    check_path(start, ticks, noise)
    dt = types.seconds(ticks.diff(dim=1)).to(start.device, start.dtype)
    try:
        fused = runtime.backend(start.device, kernels) == "triton"
    except ValueError as error:
        raise UserError(str(error)) from error
    if fused and start.dtype == torch.float32:
        return _fused(start, ticks, noise, coefficients, dt)
    dw = noise.increments(ticks) if isinstance(noise, Brownian) else noise
    spans = dt.view(*dt.shape, *[1] * (start.dim() - 1)).unbind(1)
    z, states, taken = start, [start], []
    for k, increment in enumerate(dw.to(start.dtype).unbind(1)):
        step = _checked(coefficients(z, k), z, k)
        z = solvers.chain_step(z, *step, spans[k], increment)
        states.append(z)
        taken.append(step)
    return Path(torch.stack(states, 1), *_kl(taken, states[0], dt))


def moved(z: Tensor, drift: Tensor, diffusion: Tensor, dt: float, dw: Tensor) -> Tensor:
    """One step of `dt` seconds without control."""
    return z + drift * dt + diffusion * dw


def describe(device: torch.device, kernels: runtime.Setting) -> str:
    """One line for the start of a run: which steps `chain` takes on `device`, and why.

    Raises UserError where the setting cannot run there.
    """
    try:
        return runtime.describe(device, kernels)
    except ValueError as error:
        raise UserError(str(error)) from error


def _fused(
    start: Tensor,
    ticks: Tensor,
    noise: Tensor | Brownian,
    coefficients: Coefficients,
    dt: Tensor,
) -> Path:
    """The chain by em_step: a launch a step, which draws the noise where steps are whole cells."""
    draws = _step_noise(ticks, noise, start.device)
    z, states, controls, kl = start, [start], [], start.new_zeros(len(start))
    for k, (span, draw) in enumerate(zip(dt.unbind(1), draws, strict=True)):
        step = _checked(coefficients(z, k), z, k)
        z, spent = em_step(z, step.drift, step.diffusion, span, draw, *step[2:], setting="triton")
        kl = kl + spent
        states.append(z)
        controls.append(Step(step.drift, step.diffusion, step.control))
    with torch.no_grad():
        energy = _kl(controls, start, dt)[1]
    return Path(torch.stack(states, 1), kl, energy)


def _step_noise(
    ticks: Tensor, noise: Tensor | Brownian, device: torch.device
) -> Sequence[Key | Tensor]:
    if not isinstance(noise, Brownian):
        return noise.unbind(1)
    cells = noise.whole_cells(ticks)
    if cells is None:
        return noise.increments(ticks).unbind(1)
    serial = noise.serial.to(device)
    return [(noise.seed, serial, cell) for cell in cells.t().contiguous().to(device).unbind(0)]


def _checked(step: Step, z: Tensor, k: int) -> Step:
    if k == 0:
        equation.check_fits("drift", step.drift, z)
        equation.check_fits("diffusion", step.diffusion, z)
        for name, value in (("control", step.control), ("width", step.width)):
            if value is not None:
                equation.check_fits(name, value, z)
    return step


def solve(
    sde: SDE,
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian,
    solver: str = "euler_maruyama",
    save: Sequence[int] | None = None,
    gradient: Gradient = "backprop",
) -> Path:
    """Solve `sde` from `start` along `ticks`; states at the grid points `save` (all by default).

    The drift is changed to the solver's calculus where it is written in the other. `kl` is the
    continuous bound 1/2 int |u|^2 dt, by the solver's own quadrature. `gradient` bounds the memory
    that training takes: "backprop" keeps every step, "checkpoint" the states at the saves and one
    interval's steps, "reversible" (solver reversible_heun) only the last state; what is not kept is
    solved again, its noise drawn again. Raises UserError where something does not fit.
    """
    scheme, sde = solvers.fitting(solver, sde)
    saves = list(range(ticks.shape[1])) if save is None else list(save)
    check_path(start, ticks, noise)
    _check_saves(saves, ticks.shape[1])
    grid = Grid(noise, ticks, saves, start, scheme.needs_area)
    with torch.no_grad():
        equation.check(sde, grid.time(0), start)
    if gradient == "reversible":
        if solver != "reversible_heun":
            raise UserError(
                f"gradient 'reversible' needs solver reversible_heun, but the solver is {solver}; "
                "change it, or give gradient='checkpoint'"
            )
        states, energy = reversible.solve(sde, start, grid)
    elif solver == "reversible_heun":
        states, energy = reversible.walk(sde, start, grid, gradient == "checkpoint")
    else:
        states, energy = _walk(sde, scheme, start, grid, gradient == "checkpoint")
    return Path(states, energy, energy)


def _walk(
    sde: SDE, scheme: solvers.Solver, start: Tensor, grid: Grid, again: bool
) -> tuple[Tensor, Tensor]:
    def segment(z: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        energy = z.new_zeros(len(z))
        for interval in grid.intervals(first, last):
            z, spent = scheme.step(sde, z, interval)
            energy = energy + spent
        return z, energy

    z, energy, states = start, start.new_zeros(len(start)), []
    for first, last in grid.segments():
        if last > first:
            z, spent = run(segment, again, z, first, last)
            energy = energy + spent
        states.append(z)
    return torch.stack(states, 1), energy


def _check_saves(saves: list[int], points: int) -> None:
    if not saves or saves != sorted(saves) or saves[0] < 0 or saves[-1] >= points:
        raise UserError(
            f"save is {saves}, but it must name grid points 0 to {points - 1} in rising order"
        )


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


def check_path(start: Tensor, ticks: Tensor, noise: Tensor | Brownian | None) -> None:
    """Raise UserError where times or noise do not fit `start`, or its type is too narrow."""
    steps = ticks.shape[-1] - 1
    if ticks.dim() != 2 or steps < 0 or len(ticks) != len(start):
        raise UserError(
            f"ticks have shape {tuple(ticks.shape)}, but a start of shape {tuple(start.shape)} "
            f"needs ({len(start)}, points) with at least one point"
        )
    if not start.dtype.is_floating_point or start.dtype.itemsize < 4:
        raise UserError(
            f"start is {start.dtype}, but a state in 16 bits has the wrong law; "
            "convert it to float32 (networks may stay in bf16)"
        )
    expected = (len(start), steps, *start.shape[1:])
    if isinstance(noise, Brownian):
        has = (len(noise.serial), steps, *noise.shape)
        device = noise.device
    elif noise is not None:
        has, device = tuple(noise.shape), noise.device
    else:
        has, device = expected, start.device
    if has != expected:
        raise UserError(
            f"noise has shape {has}, but {steps} steps from a start of shape "
            f"{tuple(start.shape)} need {expected}"
        )
    if device != start.device:
        raise UserError(f"noise is on {device} but start is on {start.device}; move one of them")
    if not (start.is_cuda and torch.cuda.is_current_stream_capturing()):
        _check_times(ticks)


def _check_times(ticks: Tensor) -> None:
    if ticks.shape[1] > 1 and int(ticks.diff(dim=1).min()) < 0:
        raise UserError(
            f"ticks fall by {-int(ticks.diff(dim=1).min())} somewhere, but time must not run "
            "backwards; sort the times of each clip"
        )
