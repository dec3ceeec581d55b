"""Is the SDE right? Motion tracked in generated video beside real video and the known truth.

Truth comes twice. `exact` are the SDE's own functions. `truth` is a long simulation of the SDE
seen at the frame interval through the same estimators: a finite interval biases those, so this is
what tracked motion must be compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdevid.data.synthetic import DoubleWell, OrnsteinUhlenbeck
from sdevid.evaluate.kramers_moyal import Coefficients, coefficients, overall_squared_diffusion
from sdevid.evaluate.measured import Floats, Measured, finite, mean_over

SDE = DoubleWell | OrnsteinUhlenbeck

CELLS = 15  # of the position grid
REACH = 2.0  # of the grid, in stationary standard deviations
WINDOW = 64  # frames, the length over which crossings are counted
PATHS = 4096  # simulated, of WINDOW frames


@dataclass(frozen=True)
class Motion:
    """Statistics of a set of paths along one axis."""

    statistics: dict[str, Measured]
    grid: Coefficients


def describe(paths: Floats, interval: float, sde: SDE) -> Motion:
    """Of `paths` (number, frames) in units, `interval` seconds apart; errors by path.

    `crossings` counts changes of the sign of x - middle between two frames, scaled to 64 frames;
    `right_share` is the share of frames on the right of the middle.
    """
    middle = getattr(sde, "mean", 0.0)
    mean = np.nanmean(paths)
    side = np.where(np.isfinite(paths), np.sign(paths - middle), np.nan)
    crossed = np.where(np.isfinite(np.diff(side)), np.abs(np.diff(side)) / 2, np.nan)
    deviation = np.sqrt(sde.stationary_variance())
    edges = middle + np.linspace(-REACH, REACH, CELLS + 1) * deviation
    statistics = {
        "mean": mean_over(_by_path(paths)),
        "variance": mean_over(_by_path((paths - mean) ** 2)),
        "squared_diffusion": mean_over(overall_squared_diffusion(paths, interval)),
        "crossings": mean_over(_by_path(crossed) * (WINDOW - 1)),
        "right_share": mean_over(_by_path(np.where(np.isfinite(side), side > 0, np.nan))),
        "lost": mean_over(np.isnan(paths).mean(axis=1)),
    }
    return Motion(statistics, coefficients(paths, interval, edges))


def simulate_truth(sde: SDE, interval: float, seed: int) -> Motion:
    """The same statistics of 4096 simulated paths of 64 frames."""
    times = interval * np.arange(WINDOW)
    paths = sde.simulate(np.random.default_rng(seed), PATHS, times)
    return describe(paths, interval, sde)


def compare(
    generated: Floats, real: Floats, interval: float, sde: SDE, seed: int
) -> dict[str, Any]:
    """One axis' entry in the results: statistics, their ratios to truth, and the grids."""
    found = {
        "generated": describe(generated, interval, sde),
        "real": describe(real, interval, sde),
        "truth": simulate_truth(sde, interval, seed),
    }
    truth, position = found["truth"], found["truth"].grid.position
    exact = {
        "variance": sde.stationary_variance(),
        "squared_diffusion": float(np.mean(sde.diffusion(position) ** 2)),
    }
    return {
        "frame_interval": interval,
        "statistics": {
            name: {key: value.as_json() for key, value in motion.statistics.items()}
            for name, motion in found.items()
        }
        | {"exact": exact},
        "ratio_to_truth": {name: _ratios(found[name], truth) for name in ("generated", "real")},
        "ratio_to_exact": {
            name: {key: finite(found[name].statistics[key].mean / exact[key]) for key in exact}
            for name in ("generated", "real", "truth")
        },
        "curve_error": {name: _curve_errors(found[name], truth) for name in ("generated", "real")},
        "grid": {name: _grid(motion.grid) for name, motion in found.items()}
        | {"exact": _exact_grid(sde, position)},
    }


def _by_path(values: Floats) -> Floats:
    count = np.isfinite(values).sum(axis=1)
    mean: Floats = np.nansum(values, axis=1) / np.where(count > 0, count, np.nan)
    return mean


def _ratios(motion: Motion, truth: Motion) -> dict[str, float | None]:
    keys = ("variance", "squared_diffusion", "crossings")
    return {key: finite(motion.statistics[key].mean / truth.statistics[key].mean) for key in keys}


def _curve_errors(motion: Motion, truth: Motion) -> dict[str, float | None]:
    """Root mean square difference over that of truth, weighted by how often truth is there."""
    errors = {}
    for key in ("drift", "squared_diffusion"):
        curve, true = getattr(motion.grid, key), getattr(truth.grid, key)
        weight = np.where(np.isfinite(curve) & np.isfinite(true), truth.grid.count, 0)
        difference = np.nansum(weight * (curve - true) ** 2)
        errors[key] = finite(np.sqrt(difference / np.nansum(weight * true**2)))
    return errors


def _grid(grid: Coefficients) -> dict[str, list[float | None]]:
    return {name: [finite(value) for value in values] for name, values in vars(grid).items()}


def _exact_grid(sde: SDE, position: Floats) -> dict[str, list[float]]:
    return {
        "position": position.tolist(),
        "drift": sde.drift(position).tolist(),
        "squared_diffusion": (sde.diffusion(position) ** 2).tolist(),
    }
