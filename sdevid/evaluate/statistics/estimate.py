"""A figure with its standard error and confidence interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95  # of a confidence interval
_RESAMPLES = 400  # of the bootstrap
_MOST_DRAWS = 4_000_000  # past so many, the normal interval is as good and much cheaper


@dataclass(frozen=True)
class Estimate:
    """A figure over independent units (clips or paths) and how sure it is."""

    mean: float
    standard_error: float  # NaN for a single unit
    interval: tuple[float, float] | None = None  # of 95 %, by bootstrap over the units

    def as_json(self) -> dict[str, float | list[float] | None]:
        """Convert to an entry of results.json; NaN becomes None."""
        entry: dict[str, float | list[float] | None] = {
            "mean": finite(self.mean),
            "standard_error": finite(self.standard_error),
        }
        return entry if self.interval is None else entry | {"interval": list(self.interval)}


def mean_over(units: Floats) -> Estimate:
    """Average over the first axis, one value a unit; units that are NaN are left out.

    The interval is the bootstrap's, percentiles of the means of 400 resamples; normal where there
    are over 10,000 units.
    """
    kept = units[np.isfinite(units)]
    if kept.size == 0:
        return Estimate(float("nan"), float("nan"))
    mean = float(kept.mean())
    if kept.size == 1:
        return Estimate(mean, float("nan"))
    error = float(kept.std(ddof=1) / np.sqrt(kept.size))
    if kept.size * _RESAMPLES > _MOST_DRAWS:
        return Estimate(mean, error, (mean - 1.96 * error, mean + 1.96 * error))
    chosen = np.random.default_rng(0).integers(kept.size, size=(_RESAMPLES, kept.size))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(kept[chosen].mean(axis=1), [tail, 100 - tail])
    return Estimate(mean, error, (float(low), float(high)))


def finite(value: float) -> float | None:
    """Convert `value` to what JSON can hold: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
