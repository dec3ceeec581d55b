"""Solves a path step by step, by any scheme: the solver that takes what no other does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from sdevid_kernels import runtime
from sdevid_kernels.em_step import Key, em_step
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import equation, path_kl, reversible, second_order, solvers
from sdevid.sde.equation import SDE
from sdevid.sde.grid import Grid, checkpointed, spans
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import (
    EULER,
    Coefficients,
    Gradient,
    Order,
    Path,
    Problem,
    Step,
    check_path,
    check_saved,
)
from sdevid.transfer import to_device

NAME = "stepwise"
Spent = tuple[Tensor, Tensor, Tensor]  # state, KL and the control's part of it


def unsupported(problem: Problem) -> str | None:
    """Say why this solver cannot take `problem`, or None if it can."""
    scheme, fields = problem.scheme, problem.fields
    if scheme == EULER:
        if problem.gradient == "reversible":
            return f"gradient reversible undoes reversible_heun, not {scheme}"
        return None
    if scheme not in solvers.SOLVERS:
        return f"{scheme} is not one of {', '.join(solvers.SOLVERS)}"
    if problem.order == 2:
        return f"{scheme} takes no state of second order; {EULER} does"
    if isinstance(fields, str):
        return fields
    if fields.noise not in solvers.SOLVERS[scheme].strong_order:
        return f"{scheme} takes no {fields.noise} noise; milstein and heun do"
    if problem.gradient == "reversible" and scheme != "reversible_heun":
        return f"gradient reversible undoes reversible_heun, not {scheme}"
    return None


def solve(problem: Problem) -> Path:
    """Solve the path by the problem's scheme. Raises UserError where something does not fit."""
    start, ticks, noise = problem.start, problem.ticks, problem.noise
    if problem.scheme == EULER:
        recompute = problem.gradient == "checkpoint"
        kernels, order = problem.kernels, problem.order
        return chain(
            start, ticks, noise, problem.coefficients, kernels, problem.saved, order, recompute
        )
    if isinstance(problem.fields, str) or not isinstance(noise, Brownian):
        raise UserError(f"{problem.scheme} takes fields in time and a Brownian path as its noise")
    return integrate(
        problem.fields, start, ticks, noise, problem.scheme, problem.saved, problem.gradient
    )


def chain(
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Float[Tensor, "batch steps *noise"] | Brownian,
    coefficients: Coefficients,
    kernels: runtime.Setting = "auto",
    saved: Sequence[int] | None = None,
    order: Order = 1,
    recompute: bool = False,
) -> Path:
    """Solve the Euler-Maruyama chain z' = z + (h + g u) d + r g dW from `start` along `ticks`.

    States come back at the grid points `saved`, all by default. A step between equal ticks leaves
    state and KL as they are, which pads clips of fewer points. State and sums are float32, or
    float64 where `start` is. `kernels` chooses one launch a step ("auto": on CUDA). With `order` 2
    the state is (q, v), and noise and coefficients are v's (`second_order`). With `recompute` only
    the saved states are kept; the steps between are solved again in the backward pass. A path that
    diverges comes back in NaNs. Raises UserError where shapes, times or devices do not fit.
    """
    driven = second_order.halves(start)[1] if order == 2 else start
    check_path(driven, ticks, noise)
    saves = check_saved(saved, ticks.shape[1])
    advance, fused = _advance(start, kernels, order)
    dt = to_device(types.units(ticks.diff(dim=1)), start.device).to(start.dtype)
    draw = _draws(ticks, noise, start, fused)
    whole = None if recompute else draw(0, ticks.shape[1] - 1)

    def solve_span(z: Tensor, first: int, last: int) -> Spent:
        kl, energy = z.new_zeros(len(z)), z.new_zeros(len(z))
        draws = draw(first, last) if whole is None else whole[first:last]
        for k, each in enumerate(draws, start=first):
            step = coefficients(z, k)
            if k == 0:
                _check_step(step, driven)
            z, spent, control = advance(z, step, dt[:, k], each)
            kl, energy = kl + spent, energy + control
        return z, kl, energy

    states, kl, energy = _solve_spans(solve_span, start, saves, recompute)
    return Path(states, kl, energy)


def prior_step(z: Tensor, drift: Tensor, diffusion: Tensor, dt: float, dw: Tensor) -> Tensor:
    """Take one step of `dt` units of time without control: the state after it, like `z`."""
    return z + drift * dt + diffusion * dw


def _advance(
    start: Tensor, kernels: runtime.Setting, order: Order
) -> tuple[Callable[..., Spent], bool]:
    """Choose what takes a state to the next; also say whether a kernel does."""
    try:
        fused = runtime.backend(start.device, kernels) == "triton" and start.dtype == torch.float32
    except ValueError as error:
        raise UserError(str(error)) from error
    advance = _by_kernel if fused else _by_torch
    return partial(_second_order, advance) if order == 2 else advance, fused


def _by_torch(z: Tensor, step: Step, dt: Tensor, dw: Tensor) -> Spent:
    """Take a step of the chain; return the state, its KL, and the control's part of it."""
    wide = dt.view(-1, *[1] * (z.dim() - 1))
    energy = kl = z.new_zeros(len(z))
    if step.control is not None:
        energy = kl = path_kl.control_energy(step.control.expand_as(z)[:, None], dt[:, None])
    if step.width is not None:
        kl = kl + path_kl.width_kl(step.width.expand_as(z)[:, None], dt[:, None])
    return solvers.chain_step(z, *step, wide, dw.to(z.dtype)), kl, energy


def _by_kernel(z: Tensor, step: Step, dt: Tensor, draw: Key | Tensor) -> Spent:
    """Take the same step in one launch, which draws the noise of a whole cell itself."""
    drift, diffusion, control, width = step
    end, kl = em_step(z, drift, diffusion, dt, draw, control, width, setting="triton")
    energy = torch.zeros_like(kl)
    if control is not None:
        with torch.no_grad():
            energy = path_kl.control_energy(control.expand_as(z)[:, None], dt[:, None])
    return end, kl, energy


def _second_order(
    advance: Callable[..., Spent], z: Tensor, step: Step, dt: Tensor, draw: Key | Tensor
) -> Spent:
    q, v = second_order.halves(z)
    v, kl, energy = advance(v.contiguous(), step, dt, draw)
    return second_order.joined(q, v, dt.view(-1, *[1] * (z.dim() - 1))), kl, energy


def _draws(
    ticks: Tensor, noise: Tensor | Brownian, start: Tensor, fused: bool
) -> Callable[[int, int], Sequence[Any]]:
    """Build the source of the steps' noise from one to another: dW, or for a kernel its keys."""
    if not isinstance(noise, Brownian):
        return lambda first, last: noise[:, first:last].unbind(1)
    path = noise
    serial = path.serial.to(start.device)

    def draw(first: int, last: int) -> Sequence[Any]:
        if first == last:
            return []
        part = ticks[:, first : last + 1]
        cells = path.whole_cells(part) if fused else None
        if cells is None:
            return path.increments(part).unbind(1)
        return [
            (path.seed, serial, cell) for cell in to_device(cells.t().contiguous(), start.device)
        ]

    return draw


def _check_step(step: Step, z: Tensor) -> None:
    equation.check_fits("drift", step.drift, z)
    equation.check_fits("diffusion", step.diffusion, z)
    for name, value in (("control", step.control), ("width", step.width)):
        if value is not None:
            equation.check_fits(name, value, z)


def integrate(
    sde: SDE,
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian,
    scheme: str = EULER,
    saved: Sequence[int] | None = None,
    gradient: Gradient = "backprop",
) -> Path:
    """Solve `sde` from `start` along `ticks`; states at the grid points `saved` (all by default).

    The drift is converted to the scheme's calculus where it is written in the other. `kl` is the
    continuous bound 1/2 int |u|^2 dt, by the scheme's own quadrature. `gradient` bounds the memory
    that training takes: "backprop" keeps every step, "checkpoint" the states at the saves and one
    interval's steps, "reversible" (scheme reversible_heun) only the last state; what is not kept is
    solved again, its noise drawn again. Raises UserError where something does not fit.
    """
    solver, sde = solvers.fitting(scheme, sde)
    saves = check_saved(saved, ticks.shape[1])
    check_path(start, ticks, noise)
    grid = Grid(noise, ticks, saves, start, solver.needs_area)
    with torch.no_grad():
        equation.check_fields(sde, grid.time(0), start)
    if gradient == "reversible" and scheme != "reversible_heun":
        raise UserError(
            f"gradient 'reversible' needs solver reversible_heun, but the solver is {scheme}; "
            "change it, or give gradient='checkpoint'"
        )
    if gradient == "reversible":
        states, energy = reversible.solve_by_inversion(sde, start, grid)
    elif scheme == "reversible_heun":
        states, energy = reversible.solve_by_autograd(sde, start, grid, gradient == "checkpoint")
    else:
        solve_span = partial(_scheme_span, sde, solver, grid)
        states, energy = _solve_spans(solve_span, start, saves, gradient == "checkpoint")
    return Path(states, energy, energy)


def _scheme_span(
    sde: SDE, solver: solvers.Scheme, grid: Grid, z: Tensor, first: int, last: int
) -> tuple[Tensor, Tensor]:
    energy = z.new_zeros(len(z))
    for interval in grid.intervals(first, last):
        z, spent = solver.step(sde, z, interval)
        energy = energy + spent
    return z, energy


def _solve_spans(
    solve_span: Callable[..., tuple[Tensor, ...]],
    start: Tensor,
    saves: Sequence[int],
    recompute: bool,
) -> tuple[Tensor, ...]:
    """Solve span by span; return the states at the saved points and the spans' costs, summed."""
    z, states, spent = start, [], list[tuple[Tensor, ...]]()
    for first, last in spans(saves):
        if last > first or not spent:
            z, *parts = checkpointed(solve_span, recompute, z, first, last)
            spent.append(tuple(parts))
        states.append(z)
    sums = (torch.stack(parts).sum(0) for parts in zip(*spent, strict=True))
    return torch.stack(states, 1), *sums
