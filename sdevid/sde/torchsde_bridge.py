"""Solves by torchsde, along our Brownian path: an oracle, other methods, adaptive steps.

The only file that knows torchsde. 1/2 int |u|^2 dt is one component more of the state, which has
no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

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
    """Why this solver cannot take `problem`, or None if it can."""
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
    """The path by torchsde; with gradient "reversible", by its `sdeint_adjoint`.

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


class _Equation:
    """torchsde's protocol: states are (batch, components), the energy last; time is a scalar."""

    def __init__(self, sde: SDE, shape: torch.Size, noise_type: str) -> None:
        self.sde, self.shape = sde, shape
        self.sde_type, self.noise_type = sde.calculus, noise_type

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        rates = self.sde.rates(*self._ours(t, y))
        return torch.cat([rates.drift.flatten(1), rates.energy[:, None]], 1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        time, z = self._ours(t, y)
        g = self.sde.diffusion(time, z).to(z.dtype).expand_as(z).flatten(1)
        if self.noise_type == "additive":
            return torch.cat([g.diag_embed(), torch.zeros_like(g)[:, None]], 1)
        return torch.cat([g, torch.zeros_like(g[:, :1])], 1)

    def _ours(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y[:, :-1].reshape(self.shape)
        return t.to(z.dtype).expand(len(z)).view(-1, *[1] * (z.dim() - 1)), z


class _Path:
    """Our Brownian path asked by float times, which are rounded to the nearest tick.

    Steps of any length (`adaptive`) take the area under the path as linear between the ticks that
    part a cell into _PARTS: of the area's variance given the ends, 1 / _PARTS^2 is left out.
    """

    levy_area_approximation = "space-time"

    def __init__(self, noise: Brownian, like: Tensor, idle: int, adaptive: bool) -> None:
        self.noise, self.like, self.idle, self.adaptive = noise, like, idle, adaptive
        self.shape = (len(noise.serial), noise.size + idle)
        self.dtype, self.device = like.dtype, like.device

    def __call__(self, ta: float | Tensor, tb: float | Tensor, **wanted: bool) -> Any:
        points = [round(float(t) * types.TICKS_PER_SECOND) for t in (ta, tb)]
        ticks = torch.tensor([points]).expand(self.shape[0], -1)
        if not wanted.get("return_U"):
            return self._flat(self.noise.increments(ticks))
        if not self.adaptive:
            return self._flat(self.noise.increments(ticks)), self._flat(self.noise.areas(ticks))
        part = max(1, self.noise.cell // _PARTS)
        first, last = points
        inner = range(first // part * part + part, last, part)
        every = torch.tensor([first, *inner, last]).expand(self.shape[0], -1)
        moves = self.noise.increments(every).flatten(2)
        spans = types.seconds(every.diff(dim=1)).to(moves)[..., None]
        areas = ((moves.cumsum(1) - 0.5 * moves) * spans).sum(1, keepdim=True)
        return self._flat(moves.sum(1, keepdim=True)), self._flat(areas)

    def _flat(self, steps: Tensor) -> Tensor:
        moves = steps[:, 0].flatten(1).to(self.like)
        return nn.functional.pad(moves, (0, self.idle))


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

    The drift is changed to the calculus of `method`. Steps are those of the grid `ticks`, or with a
    `tolerance` (relative and absolute) chosen by step doubling. Raises UserError where the clips
    have different times: torchsde takes one grid for a batch.
    """
    import torchsde

    if not bool((ticks == ticks[:1]).all()):
        raise UserError(
            "torchsde takes one time grid for a batch, but the clips' ticks differ; "
            "solve clips of equal times together, or use one of our solvers"
        )
    check_path(start, ticks, noise)
    sde, saves = sde.written_in(METHODS[method]), check_saved(saved, ticks.shape[1])
    noise_type = "additive" if method == "srk" and sde.noise == "additive" else "diagonal"
    options: dict[str, Any] = {"adjoint_params": sde.tensors} if adjoint else {}
    run = partial(
        torchsde.sdeint_adjoint if adjoint else torchsde.sdeint,
        _Equation(sde, start.shape, noise_type),
        bm=_Path(noise, start, int(noise_type == "diagonal"), tolerance is not None),
        method=method,
        **options,
    )
    y = nn.functional.pad(start.flatten(1), (0, 1))
    by_point = _walk(run, y, ticks[0], saves, tolerance)
    states = torch.stack([by_point[point][:, :-1] for point in saves], 1)
    energy = by_point[saves[-1]][:, -1]
    return Path(states.reshape(len(start), -1, *start.shape[1:]), energy, energy)


def _walk(
    run: Callable[..., Tensor],
    y: Tensor,
    ticks: Int64[Tensor, " points"],
    saves: list[int],
    tolerance: float | None,
) -> dict[int, Tensor]:
    """States by grid point, from `y` at the first."""
    times, by_point = types.seconds(ticks).to(y.device, torch.float64), {0: y}
    for points in _calls(ticks, saves, tolerance is not None):
        first, last = points[0], points[-1]
        if ticks[first] == ticks[last]:
            by_point[last] = by_point[first]
            continue
        span = float(times[last] - times[first]) / (len(points) - 1)
        options = {"dt": span} if tolerance is None else _adaptive(span, tolerance)
        ys = run(by_point[first], times[points], **options)
        by_point.update(zip(points, ys.unbind(0), strict=True))
    return by_point


def _calls(ticks: Int64[Tensor, " points"], saves: list[int], adaptive: bool) -> list[list[int]]:
    """Grid points of each call: torchsde's steps are equal, and it interpolates between them."""
    if adaptive:
        return [[a, b] for a, b in pairwise([0, *saves]) if a < b]
    spans = ticks.diff()
    if len(spans) and bool((spans == spans[0]).all()):
        return [list(range(len(ticks)))]
    return [[k, k + 1] for k in range(len(spans))]


def _adaptive(span: float, tolerance: float) -> dict[str, Any]:
    bounds = {"dt": span / 2, "dt_min": span / 1024}
    return {"adaptive": True, "rtol": tolerance, "atol": tolerance, **bounds}
