"""Estimators of a law of motion from tracks: mean square displacement, drift and diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdevid.evaluate.blobs import Tracks
from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import Estimate, Floats, finite

LAGS = 6  # frames, of the mean square displacement
CELLS = 6  # of the fields, a side
FEWEST = 20  # steps in a cell, below which its field is unknown


@dataclass(frozen=True)
class FilmSums:
    """Sums over the tracks of one film."""

    displacements: (
        Floats  # (lags, 4): squared displacements, displacements along x and y, their number
    )
    cells: Floats  # (cells, cells, 4): the same of single steps, by the cell where they start
    tracks: int
    counts: tuple[float, float]  # tracked things at the first and the last frame


def film_sums(tracks: Tracks, counts: list[int], side: tuple[int, int], shortest: int) -> FilmSums:
    """Sum displacements over lags and cells; `side` is the frame's height and width in pixels.

    A track counts from `shortest` places.
    """
    displacements, cells = np.zeros((LAGS, 4)), np.zeros((CELLS, CELLS, 4))
    kept = [track for track in tracks if len(track) >= shortest]
    for track in kept:
        for lag in range(1, min(LAGS, len(track) - 1) + 1):
            step = track[lag:] - track[:-lag]
            displacements[lag - 1] += (step**2).sum(), *step.sum(axis=0), len(step)
        step = np.diff(track, axis=0)
        place = np.array([CELLS / side[1], CELLS / side[0]]) * track[:-1]
        column, row = np.clip(place.astype(int), 0, CELLS - 1).T
        each = np.column_stack([(step**2).sum(axis=1), step, np.ones(len(step))])
        np.add.at(cells, (row, column), each)
    ends = (float(counts[0]), float(counts[-1]))
    return FilmSums(displacements, cells, len(kept), ends)


def _displacement(sums: Floats) -> Floats:
    """Compute the mean square displacement about the mean one from sums (..., 4)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums[..., :3] / sums[..., 3:]
    value: Floats = mean[..., 0] - mean[..., 1] ** 2 - mean[..., 2] ** 2
    return value


def _slope(x: Floats, y: Floats) -> Floats:
    """Fit the slope of y (..., lags) on x (lags,), with intercept, by least squares without NaN."""
    known = np.isfinite(y)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    mean = np.where(known, x, 0).sum(axis=-1, keepdims=True) / count
    apart = np.where(known, x - mean, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Floats = (apart * np.where(known, y, 0)).sum(axis=-1) / (apart**2).sum(axis=-1)
    return value


def _exponent(time: Floats, displacement: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: tuple[Floats, Floats] = np.log(time), np.log(displacement)
    return _slope(*logs)


def law_of(films: list[FilmSums], sources: list[str], interval: float) -> dict[str, Any]:
    """Estimate the law of films `interval` seconds a frame apart.

    Intervals are over source videos. The mean displacement is taken out of the mean square one. D
    is a quarter of its slope over `LAGS` lags with an intercept (which takes the tracker's error),
    the exponent its slope in logarithms; drift is the mean of single steps. Lengths in pixels.
    """
    names = sorted(set(sources))
    rows = np.array([names.index(name) for name in sources])
    displacements = np.zeros((len(names), LAGS, 4))
    np.add.at(displacements, rows, np.stack([film.displacements for film in films]))
    time: Floats = interval * np.arange(1, LAGS + 1, dtype=np.float64)

    def estimate(statistic: Callable[[Floats], Floats]) -> dict[str, Any]:
        """Bootstrap `statistic` of sums (resamples, lags, 4) over source videos."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return bootstrap(
                len(names), lambda weight: statistic(np.tensordot(weight, displacements, axes=1))
            ).as_json()

    counts = np.array([film.counts for film in films])
    return {
        "tracks": sum(film.tracks for film in films),
        "diffusion": estimate(lambda sums: _slope(time, _displacement(sums)) / 4),
        "exponent": estimate(lambda sums: _exponent(time, _displacement(sums))),
        "drift": {
            "x": estimate(lambda sums: sums[:, 0, 1] / sums[:, 0, 3] / interval),
            "y": estimate(lambda sums: sums[:, 0, 2] / sums[:, 0, 3] / interval),
        },
        "displacement": [
            {"lag": float(time[k])} | estimate(lambda sums, k=k: _displacement(sums)[:, k])  # type: ignore[misc]
            for k in range(LAGS)
        ],
        "count": {"first": counts[:, 0].mean(), "last": counts[:, 1].mean()},
        "fields": fields(films, interval),
    }


def fields(films: list[FilmSums], interval: float) -> dict[str, Any]:
    """Estimate drift (x, y) and D by cell, rows from the top; None where few steps begin."""
    cells = np.sum([film.cells for film in films], axis=0)
    few = cells[..., 3] < FEWEST
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = {
            "drift_x": cells[..., 1] / cells[..., 3] / interval,
            "drift_y": cells[..., 2] / cells[..., 3] / interval,
            "diffusion": _displacement(cells) / 4 / interval,
        }
    return {
        name: [[finite(float(v)) for v in row] for row in np.where(few, np.nan, value)]
        for name, value in parts.items()
    }


def over_seeds(values: list[float]) -> dict[str, Any]:
    """Compute mean and standard error over seeds; keep each seed's value."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)])
    if not len(known):
        return Estimate(float("nan"), float("nan")).as_json() | {"seeds": values}
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return Estimate(float(known.mean()), error).as_json() | {"seeds": values}
