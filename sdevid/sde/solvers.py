"""One step function a scheme, declared with its strong order and its calculus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdevid.errors import UserError
from sdevid.sde.equation import SDE, Calculus, Noise, Rates


class Interval(NamedTuple):
    """One step's time and noise. All but `t` broadcast over the state (batch, *shape)."""

    t: Tensor  # start, units of time
    dt: Tensor  # units of time
    dw: Tensor  # W(t + dt) - W(t)
    area: Tensor | None = None  # integral of W(s) - W(t) over the step, units of time^1.5


class StepResult(NamedTuple):
    """The state after a step, and 1/2 |u|^2 dt along it."""

    z: Tensor
    energy: Tensor  # nats, (batch,)


StepFunction = Callable[[SDE, Tensor, Interval], StepResult]


@dataclass(frozen=True)
class Scheme:
    """A scheme and what is known of it.

    `strong_order` holds its order for each kind of noise that it takes; `calculus` None: it is
    right in both.
    """

    name: str
    step: StepFunction
    calculus: Calculus | None
    strong_order: Mapping[Noise, float]
    needs_area: bool = False


def chain_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
    dt: Tensor,
    dw: Tensor,
) -> Tensor:
    """Step z + (h + g u) dt + r g dW: Euler-Maruyama of a controlled SDE of noise width r.

    `control` None is u = 0, `width` None is r = 1. `dt` broadcasts over the state, `dw` has
    standard deviation sqrt(dt). Coefficients may be 16 bit; the sum is in the state's type.
    """
    diffusion = diffusion.to(z.dtype)
    total = drift.to(z.dtype)
    if control is not None:
        total = torch.addcmul(total, diffusion, control.to(z.dtype))
    scale = diffusion if width is None else diffusion * width.to(z.dtype)
    return torch.addcmul(torch.addcmul(z, total, dt), scale, dw)


def euler_maruyama(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    """Take an Euler-Maruyama step (Kloeden & Platen 1992, section 10.2)."""
    drift, g, energy = sde.rates(interval.t, z)
    end = torch.addcmul(torch.addcmul(z, drift, interval.dt), g, interval.dw)
    return StepResult(end, energy * _flat(interval.dt))


def milstein(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    """Add to Euler-Maruyama 1/2 g g' (dW^2 - dt) (Kloeden & Platen 1992, section 10.3)."""
    end, energy = euler_maruyama(sde, z, interval)
    if sde.noise == "additive":
        return StepResult(end, energy)
    g, slope = sde.diffusion_slope(interval.t, z)
    return StepResult(end + 0.5 * g * slope * (interval.dw.square() - interval.dt), energy)


def heun(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    """Take the trapezoid in drift and noise, with Euler as its predictor (Ruemelin 1982)."""
    first = sde.rates(interval.t, z)
    guess = _euler(z, first, interval)
    second = sde.rates(interval.t + interval.dt, guess)
    return _trapezoid(z, first, second, interval)


def midpoint(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    """Step with the coefficients at the middle of the step, reached by half an Euler step."""
    first = sde.rates(interval.t, z)
    half = Interval(interval.t, interval.dt / 2, interval.dw / 2)
    middle = sde.rates(interval.t + half.dt, _euler(z, first, half))
    return StepResult(_euler(z, middle, interval), middle.energy * _flat(interval.dt))


def srk(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    """Take a step of SRA1, for additive noise (Roessler 2010, SIAM J. Numer. Anal. 48, table 6.3).

    Raises UserError where the interval has no area.
    """
    t, dt, dw, area = interval
    if area is None:
        raise UserError("solver srk needs the area under the path; give a Brownian as its noise")
    mean = area / dt.where(dt > 0, torch.ones_like(dt))
    first = sde.rates(t, z)
    later = sde.diffusion(t + dt, z).to(z.dtype)
    inner = z + 0.75 * first.drift * dt + 1.5 * later * mean
    second = sde.rates(t + 0.75 * dt, inner)
    drift = (first.drift + 2 * second.drift) / 3
    end = z + drift * dt + later * (dw - mean) + first.diffusion * mean
    return StepResult(end, (first.energy + 2 * second.energy) / 3 * _flat(dt))


class ReversibleState(NamedTuple):
    """Reversible Heun's state: the solution, its companion, and the rates at the companion."""

    z: Tensor
    companion: Tensor
    rates: Rates


def reversible_heun(
    sde: SDE, state: ReversibleState, interval: Interval
) -> tuple[ReversibleState, StepResult]:
    """Take a step that can be undone exactly (Kidger et al. 2021, algorithm 1)."""
    z, companion, first = state
    companion = _euler(2 * z - companion, first, interval)
    second = sde.rates(interval.t + interval.dt, companion)
    end = _trapezoid(z, first, second, interval)
    return ReversibleState(end.z, companion, second), end


def _reversible_from_rest(sde: SDE, z: Tensor, interval: Interval) -> StepResult:
    return reversible_heun(sde, ReversibleState(z, z, sde.rates(interval.t, z)), interval)[1]


def _euler(z: Tensor, rates: Rates, interval: Interval) -> Tensor:
    end = torch.addcmul(z, rates.drift, interval.dt)
    return torch.addcmul(end, rates.diffusion, interval.dw)


def _trapezoid(z: Tensor, first: Rates, second: Rates, interval: Interval) -> StepResult:
    both = Rates(*(a + b for a, b in zip(first, second, strict=True)))
    half = Interval(interval.t, interval.dt / 2, interval.dw / 2)
    return StepResult(_euler(z, both, half), both.energy * _flat(half.dt))


def _flat(dt: Tensor) -> Tensor:
    return dt.flatten()


_ANY: dict[Noise, float] = {"additive": 1.0, "diagonal": 1.0}

SOLVERS: dict[str, Scheme] = {
    solver.name: solver
    for solver in (
        Scheme("euler_maruyama", euler_maruyama, "ito", {"additive": 1.0, "diagonal": 0.5}),
        Scheme("milstein", milstein, "ito", _ANY),
        Scheme("heun", heun, "stratonovich", _ANY),
        Scheme("midpoint", midpoint, "stratonovich", _ANY),
        Scheme("srk", srk, None, {"additive": 1.5}, needs_area=True),
        Scheme(
            "reversible_heun",
            _reversible_from_rest,
            "stratonovich",
            {"additive": 1.0, "diagonal": 0.5},
        ),
    )
}


def fitting(name: str, sde: SDE, convert: bool = True) -> tuple[Scheme, SDE]:
    """Look up the solver `name`, and rewrite `sde` in the solver's calculus.

    Raises UserError where there is no such solver, it does not take the noise of `sde`, or its
    calculus is another and `convert` is False.
    """
    if name not in SOLVERS:
        raise UserError(f"solver is {name!r}; there are {', '.join(SOLVERS)}")
    solver = SOLVERS[name]
    if sde.noise not in solver.strong_order:
        fit = [other.name for other in SOLVERS.values() if sde.noise in other.strong_order]
        raise UserError(
            f"solver {name} takes {' or '.join(solver.strong_order)} noise, but the SDE's is "
            f"{sde.noise}; {', '.join(fit)} take it (non-diagonal noise is out of scope)"
        )
    if solver.calculus is None or solver.calculus == sde.calculus:
        return solver, sde
    if not convert:
        raise UserError(
            f"solver {name} solves in the {solver.calculus} sense, but the SDE is written in the "
            f"{sde.calculus} sense; use sde.written_in({solver.calculus!r}) or another solver"
        )
    return solver, sde.written_in(solver.calculus)
