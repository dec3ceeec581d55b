"""Is the SDE right? Motion tracked in generated video beside real video and the known truth.

Truth comes twice. `exact` are the SDE's own functions. `truth` is a long simulation of the SDE
seen at the frame interval through the same estimators: a finite interval biases those, so this is
what tracked motion must be compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdevid.data.drawn import SDE
from sdevid.data.radius import GeometricBrownian
from sdevid.data.synthetic import OrnsteinUhlenbeck
from sdevid.evaluate.sde_recovery.kramers_moyal import (
    CoefficientEstimates,
    coefficients,
    overall_squared_diffusion,
)
from sdevid.evaluate.sde_recovery.timescales import autocorrelation_time, first_passage_time
from sdevid.evaluate.statistics.estimate import Estimate, Floats, finite, mean_over

CELLS = 15  # of the position grid
REACH = 2.0  # of the grid, in stationary standard deviations
WINDOW = 64  # frames, the length over which crossings are counted
PATHS = 4096  # simulated


@dataclass(frozen=True)
class MotionStatistics:
    """Statistics of a set of paths along one axis."""

    statistics: dict[str, Estimate]
    grid: CoefficientEstimates


def motion_statistics(
    paths: Floats, interval: float, sde: SDE, horizon: float | None = None
) -> MotionStatistics:
    """Measure `paths` (number, frames) in units, `interval` seconds apart; errors by path.

    `crossings` counts changes of the sign of x - middle between two frames, scaled to 64 frames;
    `right_share` is the share of frames on the right of the middle. The first-passage time is from
    a stationary standard deviation off the middle to the middle, up to `horizon` seconds (the
    paths' length).
    """
    middle, order = sde.middle, sde.order
    mean = np.nanmean(paths)
    side = np.where(np.isfinite(paths), np.sign(paths - middle), np.nan)
    crossed = np.where(np.isfinite(np.diff(side)), np.abs(np.diff(side)) / 2, np.nan)
    longest = (paths.shape[1] - 1) * interval
    level = float(np.sqrt(sde.stationary_variance()))
    squared = overall_squared_diffusion(paths, interval, order=order)
    statistics = {
        "mean": mean_over(_by_path(paths)),
        "variance": mean_over(_by_path((paths - mean) ** 2)),
        "squared_diffusion": mean_over(squared),
        "crossings": mean_over(_by_path(crossed) * (WINDOW - 1)),
        "right_share": mean_over(_by_path(np.where(np.isfinite(side), side > 0, np.nan))),
        "autocorrelation_time": autocorrelation_time(paths, interval, sde.mean),
        "first_passage_time": first_passage_time(
            paths, interval, middle, level, min(horizon or longest, longest)
        ),
        "lost": mean_over(np.isnan(paths).mean(axis=1)),
    }
    return MotionStatistics(statistics, coefficients(paths, interval, _edges(sde), order))


def simulate_truth(
    sde: SDE,
    interval: float,
    seed: int,
    frames: int = WINDOW,
    paths: int = PATHS,
    horizon: float | None = None,
) -> MotionStatistics:
    """Simulate `paths` paths of the SDE and compute the same statistics."""
    times = interval * np.arange(frames)
    states = sde.simulate(np.random.default_rng(seed), paths, times)
    return motion_statistics(states[..., 0] if sde.order == 2 else states, interval, sde, horizon)


def compare(
    generated: Floats,
    real: Floats,
    interval: float,
    sde: SDE,
    seed: int,
    frames: int = WINDOW,
    paths: int = PATHS,
) -> dict[str, Any]:
    """Compare one axis with the truth: statistics, their ratios to truth, and the grids.

    `frames` and `paths` are those of the simulated truth. First passages are counted up to three
    quarters of the length of the shorter of `generated` and `real`.
    """
    horizon = (3 * min(generated.shape[1], real.shape[1]) // 4 - 1) * interval
    entry = {
        "generated": motion_statistics(generated, interval, sde, horizon),
        "real": motion_statistics(real, interval, sde, horizon),
        "truth": simulate_truth(sde, interval, seed, frames, paths, horizon),
    }
    truth, position = entry["truth"], entry["truth"].grid.position
    exact = _exact(sde, truth.grid, horizon)
    return {
        "frame_interval": interval,
        "horizon": horizon,
        "order": sde.order,
        "statistics": {
            name: {key: value.as_json() for key, value in motion.statistics.items()}
            for name, motion in entry.items()
        }
        | {"exact": exact},
        "ratio_to_truth": {name: _ratios(entry[name], truth) for name in ("generated", "real")},
        "ratio_to_exact": {
            name: {key: finite(entry[name].statistics[key].mean / exact[key]) for key in exact}
            for name in ("generated", "real", "truth")
        },
        "curve_error": {name: _curve_errors(entry[name], truth) for name in ("generated", "real")},
        "grid": {name: _grid(motion.grid) for name, motion in entry.items()}
        | {"exact": _exact_grid(sde, position)},
    }


def _edges(sde: SDE) -> Floats:
    if isinstance(sde, GeometricBrownian):
        return np.linspace(sde.low, sde.high, CELLS + 1)
    deviation = np.sqrt(sde.stationary_variance())
    edges: Floats = sde.middle + np.linspace(-REACH, REACH, CELLS + 1) * deviation
    return edges


def _exact(sde: SDE, law: CoefficientEstimates, horizon: float) -> dict[str, float]:
    """Compute what is known without simulation; squared diffusion is a mean over the law of x."""
    squared = sde.diffusion(law.position) ** 2
    exact = {
        "variance": sde.stationary_variance(),
        "squared_diffusion": float(np.average(squared, weights=law.count)),
    }
    if isinstance(sde, OrnsteinUhlenbeck):
        exact["autocorrelation_time"] = sde.autocorrelation_time()
        level = float(np.sqrt(sde.stationary_variance()))
        exact["first_passage_time"] = sde.passage_time(level, horizon)
    return exact


def _by_path(values: Floats) -> Floats:
    count = np.isfinite(values).sum(axis=1)
    mean: Floats = np.nansum(values, axis=1) / np.where(count > 0, count, np.nan)
    return mean


def _ratios(motion: MotionStatistics, truth: MotionStatistics) -> dict[str, float | None]:
    keys = (
        "variance",
        "squared_diffusion",
        "crossings",
        "autocorrelation_time",
        "first_passage_time",
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = {k: np.divide(motion.statistics[k].mean, truth.statistics[k].mean) for k in keys}
    return {key: finite(float(value)) for key, value in ratio.items()}


def _curve_errors(motion: MotionStatistics, truth: MotionStatistics) -> dict[str, float | None]:
    """Compute root mean square differences over truth's, weighted by how often truth is there."""
    errors = {}
    for key in ("drift", "squared_diffusion"):
        curve, true = getattr(motion.grid, key), getattr(truth.grid, key)
        weight = np.where(np.isfinite(curve) & np.isfinite(true), truth.grid.count, 0)
        difference = np.nansum(weight * (curve - true) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors[key] = finite(np.sqrt(difference / np.nansum(weight * true**2)))
    return errors


def _grid(grid: CoefficientEstimates) -> dict[str, list[float | None]]:
    return {name: [finite(value) for value in values] for name, values in vars(grid).items()}


def _exact_grid(sde: SDE, position: Floats) -> dict[str, list[float]]:
    return {
        "position": position.tolist(),
        "drift": sde.drift(position).tolist(),
        "squared_diffusion": (sde.diffusion(position) ** 2).tolist(),
    }
