"""Confidence intervals by the bootstrap over independent units: clips, paths or videos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sdevid.evaluate.statistics.estimate import LEVEL, Estimate, Floats

RESAMPLES = 400


def weights(units: int, rng: np.random.Generator) -> Floats:
    """Draw how often each unit occurs in each resample, (resamples, units); rows sum to `units`."""
    drawn = rng.multinomial(units, np.full(units, 1 / units), size=RESAMPLES)
    return drawn.astype(np.float64)


def bootstrap(units: int | tuple[int, ...], statistic: Callable[[Floats], Floats]) -> Estimate:
    """Estimate `statistic` with error and 95 % interval by resampling units.

    `statistic` maps weights (resamples, units) to (resamples,). Of several sets of units each is
    resampled apart; their weights stand side by side. The value itself is the statistic with each
    unit counted once. The error is the standard deviation over 400 resamples and the interval their
    percentiles (Efron & Tibshirani 1993, chapter 13). No error where there is one unit, or fewer
    than half of the resamples give a number.
    """
    sets = (units,) if isinstance(units, int) else units
    value = float(statistic(np.ones((1, sum(sets))))[0])
    if min(sets) < 2 or not np.isfinite(value):
        return Estimate(value, float("nan"))
    rng = np.random.default_rng(0)
    drawn = statistic(np.concatenate([weights(size, rng) for size in sets], axis=1))
    kept = drawn[np.isfinite(drawn)]
    if 2 * kept.size < RESAMPLES:
        return Estimate(value, float("nan"))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(kept, [tail, 100 - tail])
    return Estimate(value, float(kept.std(ddof=1)), (float(low), float(high)))


def ratio_of_means(a: Floats, b: Floats) -> Estimate:
    """Estimate the mean of `a` over that of `b`, two sets of independent units, without NaN.

    Error and interval are by bootstrap.
    """
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]

    def statistic(weight: Floats) -> Floats:
        above = weight[:, : len(a)] @ a / len(a)
        below = weight[:, len(a) :] @ b / len(b)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Floats = above / below
        return ratio

    if not len(a) or not len(b):
        return Estimate(float("nan"), float("nan"))
    return bootstrap((len(a), len(b)), statistic)
