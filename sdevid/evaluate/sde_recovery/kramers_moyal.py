"""Drift and squared diffusion of a scalar diffusion, estimated from its sampled paths.

The Kramers-Moyal coefficients E[dx | x] / dt and Var[dx | x] / dt, by a straight line through
the increments that start in each cell of a grid. At a finite frame interval dt these are not the
SDE's own functions (they tend to them as dt -> 0), so compare like with like: the same estimator
on simulated truth.

Of a motion of second order, dx = v dt, dv = f dt + g dW, only x is seen. There the increments are
those of the velocity (x[k+1] - x[k]) / dt, given x[k]: their mean is f at no velocity, and their
variance 2/3 g^2 dt, for the velocity is seen as its mean over a frame (Pedersen et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.statistics.estimate import Floats

_AVERAGED = {1: 1.0, 2: 1.5}  # what the variance of an increment is short of g^2 dt, by order

FEWEST = 8  # increments in a cell, below which it is left NaN


@dataclass(frozen=True)
class CoefficientEstimates:
    """Estimates at the centres of the cells, with standard errors; units of x and seconds."""

    position: Floats
    drift: Floats  # units a second
    drift_error: Floats
    squared_diffusion: Floats  # units squared a second
    squared_diffusion_error: Floats
    count: NDArray[np.int64]  # increments that start in the cell


def coefficients(
    paths: Floats, interval: float, edges: Floats, order: int = 1
) -> CoefficientEstimates:
    """Estimate drift and diffusion of `paths` (number, frames) in the cells between `edges`.

    Frames are `interval` seconds apart. Increments with a NaN at either end are left out. Errors of
    the squared diffusion hold for Gaussian increments. Siegert, Friedrich & Peinke 1998; local
    lines: Fan & Gijbels 1996.
    """
    start, step = (part.ravel() for part in increments(paths, interval, order))
    cell = np.digitize(start, edges) - 1
    kept = np.isfinite(step) & (cell >= 0) & (cell < len(edges) - 1)
    cell, step = cell[kept], step[kept]
    centre = (edges[1:] + edges[:-1]) / 2
    offset = start[kept] - centre[cell]

    def total(weight: Floats) -> Floats:
        return np.bincount(cell, weight, minlength=len(centre)).astype(np.float64)

    count, first, second = total(np.ones_like(step)), total(offset), total(offset**2)
    sums, cross, squares = total(step), total(offset * step), total(step**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = count * second - first**2
        level = (second * sums - first * cross) / determinant
        slope = (count * cross - first * sums) / determinant
        residual = (squares - level * sums - slope * cross) / (count - 2)
        level_error = np.sqrt(residual * second / determinant)
        residual_error = residual * np.sqrt(2 / (count - 2))
    few, scale = count < FEWEST, _AVERAGED[order]
    drift, drift_error, squared, squared_error = (
        np.where(few, np.nan, value) / interval
        for value in (level, level_error, scale * residual, scale * residual_error)
    )
    whole = count.astype(np.int64)
    return CoefficientEstimates(centre, drift, drift_error, squared, squared_error, whole)


def increments(paths: Floats, interval: float, order: int) -> tuple[Floats, Floats]:
    """Compute the start and size of each step, of the position or (order 2) of the velocity."""
    if order == 1:
        return paths[:, :-1], np.diff(paths, axis=1)
    return paths[:, 1:-1], np.diff(paths, n=2, axis=1) / interval


def overall_squared_diffusion(
    paths: Floats, interval: float, cells: int = 24, order: int = 1
) -> Floats:
    """Average (dx - drift dt)^2 / dt over each path, with the drift of all paths' increments.

    The drift is a line in each of `cells` cells that hold equally many increments. The mean over
    the paths is the squared diffusion averaged over the law of x. Returns (number,).
    """
    start, step = increments(paths, interval, order)
    valid = np.isfinite(step)
    known = start[valid]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, min(cells, known.size // 16 + 1) + 1)))
    cell = np.clip(np.digitize(start, edges) - 1, 0, len(edges) - 2)
    residual = np.full(step.shape, np.nan)
    for i in range(max(len(edges) - 1, 1)):
        inside = valid & (cell == i)
        x, dx = start[inside], step[inside]
        if x.size <= 2:
            continue
        design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
        line = np.linalg.lstsq(design, dx, rcond=None)[0]
        residual[inside] = (dx - design @ line) ** 2 * x.size / (x.size - 2)
    weight = np.isfinite(residual).sum(axis=1)
    mean: Floats = np.nansum(residual, axis=1) / np.where(weight > 0, weight, np.nan)
    return _AVERAGED[order] * mean / interval
