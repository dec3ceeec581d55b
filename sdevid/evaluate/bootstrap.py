"""Confidence intervals by the bootstrap over independent units: clips or paths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sdevid.evaluate.measured import LEVEL, Floats, Measured

RESAMPLES = 400


def weights(units: int, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """How often each unit is drawn in each resample, (resamples, units); rows sum to `units`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def bootstrap(units: int, statistic: Callable[[Floats], Floats], seed: int = 0) -> Measured:
    """`statistic` of weights (resamples, units) -> (resamples,), with error and 95 % interval.

    The value itself is the statistic with each unit counted once. The error is the standard
    deviation over 400 resamples and the interval their percentiles (Efron & Tibshirani 1993,
    chapter 13). NaN where fewer than half of the resamples give a number.
    """
    value = float(statistic(np.ones((1, units)))[0])
    drawn = statistic(weights(units, seed=seed)) if units > 1 else np.array([])
    kept = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or 2 * kept.size < RESAMPLES:
        return Measured(value, float("nan"))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(kept, [tail, 100 - tail])
    return Measured(value, float(kept.std(ddof=1)), (float(low), float(high)))
