"""Solves by torchsde, along our Brownian path: an oracle, other methods, adaptive steps.

The only file that knows torchsde. 1/2 int |u|^2 dt is one component more of the state, which has
no noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde.equation import SDE, Calculus
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Path, Problem, check_path, check_saved

NAME = "torchsde"
PREFIX = "torchsde/"
METHODS: dict[str, Calculus] = {
    "euler": "ito",
    "milstein": "ito",
    "srk": "ito",
    "euler_heun": "stratonovich",
    "heun": "stratonovich",
    "midpoint": "stratonovich",
    "reversible_heun": "stratonovich",
}
_PARTS = 32
SCHEMES = tuple(PREFIX + method for method in METHODS)


def unsupported(problem: Problem) -> str | None:
    """Say why this solver cannot take `problem`, or None if it can."""
    if problem.scheme not in SCHEMES:
        return f"{problem.scheme} is not one of {', '.join(SCHEMES)}"
    if problem.order == 2:
        return "the state is of second order"
    if isinstance(problem.fields, str):
        return problem.fields
    if not isinstance(problem.noise, Brownian):
        return "increments are given, and it asks a Brownian path at times of its own"
    if problem.gradient == "checkpoint":
        return "it keeps every step (backprop) or solves backwards (reversible), no checkpoints"
    if problem.tolerance is not None and torch.is_grad_enabled():
        return "adaptive steps are for sampling, without gradients"
    return None


def solve(problem: Problem) -> Path:
    """Solve the path by torchsde; with gradient "reversible", by its `sdeint_adjoint`.

    That gradient is exact for reversible_heun, and else that of the continuous adjoint SDE (Li et
    al. 2020), whose error falls with the steps. Raises UserError where something does not fit.
    """
    if isinstance(problem.fields, str) or not isinstance(problem.noise, Brownian):
        raise UserError(f"torchsde does not take this problem: {unsupported(problem)}")
    return integrate(
        problem.fields,
        problem.start,
        problem.ticks,
        problem.noise,
        problem.scheme.removeprefix(PREFIX),
        problem.saved,
        adjoint=problem.gradient == "reversible",
        tolerance=problem.tolerance,
    )


class _Clock(NamedTuple):
    """Each clip's ticks as a linear function of torchsde's one time, which counts grid points."""

    point: int  # where the clock starts
    ticks: Int64[Tensor, " batch"]  # there
    rate: Float[Tensor, " batch"]  # ticks from a point to the next, float64

    @classmethod
    def along(cls, ticks: Int64[Tensor, "batch points"], points: list[int]) -> _Clock:
        """Build the clock of steps of one length a clip, from the first to the last of `points`."""
        first, last = points[0], points[-1]
        rate = (ticks[:, last] - ticks[:, first]).double() / (last - first)
        return cls(first, ticks[:, first], rate)

    def at(self, time: float) -> Int64[Tensor, " batch"]:
        """Return the nearest ticks."""
        return self.ticks + (self.rate * (time - self.point)).round().long()

    def span(self, like: Tensor) -> Tensor:
        """Return a step's length in units of time, which broadcasts over states like `like`."""
        span = (self.rate / types.TICKS_PER_UNIT).to(like)
        return span.view(-1, *[1] * (like.dim() - 1))


class _Equation:
    """torchsde's protocol: states are (batch, components), the energy last; time is a scalar."""

    def __init__(self, sde: SDE, shape: torch.Size, noise_type: str, clock: _Clock) -> None:
        self.sde, self.shape, self.clock = sde, shape, clock
        self.sde_type, self.noise_type = sde.calculus, noise_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        time, z = self._ours(t, y)
        rates = self.sde.rates(time, z)
        drift, energy = (
            rates.drift * self.clock.span(z),
            rates.energy * self.clock.span(rates.energy),
        )
        return torch.cat([drift.flatten(1), energy[:, None]], 1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        time, z = self._ours(t, y)
        g = self.sde.diffusion(time, z).to(z.dtype).expand_as(z)
        g = (g * self.clock.span(z).sqrt()).flatten(1)
        if self.noise_type == "additive":
            return torch.cat([g.diag_embed(), torch.zeros_like(g)[:, None]], 1)
        return torch.cat([g, torch.zeros_like(g[:, :1])], 1)

    def _ours(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y[:, :-1].reshape(self.shape)
        ticks = self.clock.ticks + self.clock.rate * (float(t) - self.clock.point)
        return (ticks / types.TICKS_PER_UNIT).to(z).view(-1, *[1] * (z.dim() - 1)), z


class _Path:
    """Our Brownian path in the time of a clock, of unit variance a grid step.

    Steps of any length (`adaptive`) take the area under the path as linear between the ticks that
    part a cell into _PARTS: of the area's variance given the ends, 1 / _PARTS^2 is left out.
    """

    levy_area_approximation = "space-time"

    def __init__(
        self, noise: Brownian, like: Tensor, idle: int, adaptive: bool, clock: _Clock
    ) -> None:
        self.noise, self.like, self.idle, self.adaptive = noise, like, idle, adaptive
        self.clock, self.shape = clock, (len(noise.serial), noise.size + idle)
        self.dtype, self.device = like.dtype, like.device

    def __call__(self, ta: float | Tensor, tb: float | Tensor, **wanted: bool) -> Any:
        ticks = torch.stack([self.clock.at(float(t)) for t in (ta, tb)], 1)
        increment = self.noise.increments(ticks)[:, 0]
        if not wanted.get("return_U"):
            return self._scaled(increment, 0.5)
        areas = self._areas(ticks) if self.adaptive else self.noise.areas(ticks)[:, 0]
        return self._scaled(increment, 0.5), self._scaled(areas, 1.5)

    def _areas(self, ticks: Int64[Tensor, "batch 2"]) -> Tensor:
        part = max(1, self.noise.cell // _PARTS)
        first, last = ticks[:, :1], ticks[:, 1:]
        count = int((last - first).max()) // part + 1
        inner = (first // part + 1 + torch.arange(count)) * part
        every = torch.cat([first, inner.minimum(last), last], 1)
        moves = self.noise.increments(every).flatten(2)
        spans = types.units(every.diff(dim=1)).to(moves)[..., None]
        return ((moves.cumsum(1) - 0.5 * moves) * spans).sum(1)

    def _scaled(self, values: Tensor, power: float) -> Tensor:
        flat = values.flatten(1).to(self.like)
        span = self.clock.span(flat)
        scaled = torch.where(span > 0, flat / span.clamp(min=1e-12) ** power, 0.0)
        return nn.functional.pad(scaled, (0, self.idle))


def integrate(
    sde: SDE,
    start: Float[Tensor, "batch *shape"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian,
    method: str,
    saved: Sequence[int] | None = None,
    *,
    adjoint: bool = False,
    tolerance: float | None = None,
) -> Path:
    """Solve `sde` by torchsde's `sdeint`, or `sdeint_adjoint`, along our Brownian path.

    The drift is converted to the calculus of `method`. Steps are those of the grid `ticks`, or with
    a `tolerance` (relative and absolute) chosen by step doubling. torchsde takes one time for all
    clips; ours is the number of the grid point, in which each clip has drift and noise of its own.
    """
    import torchsde

    check_path(start, ticks, noise)
    sde, saves = sde.written_in(METHODS[method]), check_saved(saved, ticks.shape[1])
    noise_type = "additive" if method == "srk" and sde.noise == "additive" else "diagonal"
    options: dict[str, Any] = {"dt": 1.0, "method": method}
    if tolerance is not None:
        bounds = {"dt": 0.5, "dt_min": 1 / 1024, "rtol": tolerance, "atol": tolerance}
        options |= {"adaptive": True, **bounds}
    run = torchsde.sdeint_adjoint if adjoint else torchsde.sdeint
    if adjoint:
        options["adjoint_params"] = sde.tensors
    ticks, states = ticks.cpu(), {0: nn.functional.pad(start.flatten(1), (0, 1))}
    for points in _calls(ticks, saves, tolerance is not None):
        clock = _Clock.along(ticks, points)
        equation = _Equation(sde, start.shape, noise_type, clock)
        path = _Path(noise, start, int(noise_type == "diagonal"), tolerance is not None, clock)
        times = torch.tensor(points, dtype=torch.float64, device=start.device)
        ys = run(equation, states[points[0]], times, bm=path, **options)
        states.update(zip(points, ys.unbind(0), strict=True))
    at_saves = torch.stack([states[point] for point in saves], 1)
    energy = at_saves[:, -1, -1]
    return Path(at_saves[..., :-1].reshape(len(start), -1, *start.shape[1:]), energy, energy)


def _calls(
    ticks: Int64[Tensor, "batch points"], saves: list[int], adaptive: bool
) -> list[list[int]]:
    """Split the grid points into calls within which each clip's steps are of one length."""
    spans = ticks.diff(dim=1)
    changes = (spans.diff(dim=1) != 0).any(0).nonzero().flatten() + 1
    cuts = {0, spans.shape[1], *changes.tolist(), *(saves if adaptive else ())}
    pairs = pairwise(sorted(cuts))
    return [[a, b] if adaptive else list(range(a, b + 1)) for a, b in pairs if a < saves[-1]]
