"""The points of a solve, and the time and noise of each step between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jaxtyping import Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdevid import types
from sdevid.sde.noise import Brownian
from sdevid.sde.solvers import Interval

_SLICE = 8  # steps whose noise is drawn together where memory must not grow with steps


@dataclass(frozen=True)
class Grid:
    """Draws noise an interval between saves at a time, so that none need be kept."""

    noise: Brownian
    ticks: Int64[Tensor, "batch points"]
    saves: Sequence[int]  # grid points, rising
    like: Tensor  # a state (batch, *shape): type and device of times and noise
    needs_area: bool = False

    def time(self, point: int) -> Tensor:
        """Compute the time at a grid point in units of time, (batch, 1, ...)."""
        return self._wide(types.units(self.ticks[:, point : point + 1]))[:, 0]

    def spans(self) -> list[tuple[int, int]]:
        """List (first point, last point) of the way to each save."""
        return spans(self.saves)

    def slices(self, first: int, last: int) -> list[tuple[int, int]]:
        """Cut the way from `first` to `last` into slices whose noise is small."""
        return [(at, min(at + _SLICE, last)) for at in range(first, last, _SLICE)]

    def intervals(self, first: int, last: int) -> list[Interval]:
        """List the steps from grid point `first` to `last`."""
        if last == first:
            return []
        ticks = self.ticks[:, first : last + 1]
        times = self._wide(types.units(ticks[:, :-1])).unbind(1)
        spans = self._wide(types.units(ticks.diff(dim=1))).unbind(1)
        dw = self.noise.increments(ticks).to(self.like.dtype).unbind(1)
        if not self.needs_area:
            return [Interval(*parts) for parts in zip(times, spans, dw, strict=True)]
        areas = self.noise.areas(ticks).to(self.like.dtype).unbind(1)
        return [Interval(*parts) for parts in zip(times, spans, dw, areas, strict=True)]

    def _wide(self, values: Tensor) -> Tensor:
        values = values.to(self.like.device, self.like.dtype)
        return values.view(*values.shape, *[1] * (self.like.dim() - 1))


def spans(saves: Sequence[int]) -> list[tuple[int, int]]:
    """List (first point, last point) of the way to each saved point."""
    return list(pairwise([0, *saves]))


def checkpointed(solve: Callable[..., Any], recompute: bool, *arguments: Any) -> Any:
    """Call `solve`; with `recompute`, keep nothing inside for the backward pass."""
    if not recompute:
        return solve(*arguments)
    return checkpoint(solve, *arguments, use_reentrant=False, preserve_rng_state=False)
