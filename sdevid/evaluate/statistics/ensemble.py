"""Scores of an ensemble forecast against what happened, value by value.

`samples` has its members on the first axis; `observed` has the axes after it. A NaN in `observed`
marks a value that was not observed; its scores are NaN. Decision 0030 says why these few lines
stand here instead of a library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.statistics.estimate import Floats

LEVELS = (0.5, 0.8, 0.9, 0.95)  # of central intervals

Values = NDArray[np.floating]


def crps(samples: Values, observed: Values, fair: bool = True) -> Floats:
    """Compute the continuous ranked probability score E|X - y| - 1/2 E|X - X'|; less is better.

    Fair: the second mean runs over pairs of distinct members, so that the expectation is that of an
    infinite ensemble (Ferro 2014). Otherwise the score of the members as a discrete distribution,
    which is right for an ensemble of chosen quantiles. One member: the absolute error.
    """
    members = len(samples)
    accuracy: Floats = np.abs(samples - observed).mean(axis=0, dtype=np.float64)
    if members == 1:
        return accuracy
    ordered = np.sort(samples, axis=0)
    weight = (2.0 * np.arange(1, members + 1) - members - 1).reshape(-1, *[1] * observed.ndim)
    pairs = (weight * ordered).sum(axis=0)  # sum of |x_i - x_j| over i < j
    spread: Floats = pairs / (members * (members - 1) if fair else members**2)
    return accuracy - spread


def probability_ranks(samples: Values, observed: Values, rng: np.random.Generator) -> Floats:
    """Draw the randomised rank of each observation within its ensemble, in (0, 1).

    Uniform where observation and members are exchangeable, ties or not: the observation is put
    at a random place among members equal to it, and evenly within its step (Hamill 2001).
    """
    below = (samples < observed).sum(axis=0)
    equal = (samples == observed).sum(axis=0)
    ranks: Floats = (below + rng.random(observed.shape) * (equal + 1)) / (len(samples) + 1)
    return np.where(np.isfinite(observed), ranks, np.nan)


def covered(ranks: Floats, level: float) -> Floats:
    """Tell whether central intervals of `level` hold the observation, by `probability_ranks`.

    1 or 0, with mean `level` for an exchangeable ensemble of any size; NaN stays.
    """
    inside = (np.abs(ranks - 0.5) <= level / 2).astype(np.float64)
    return np.where(np.isfinite(ranks), inside, np.nan)


def pooled(values: Values, side: int) -> Floats:
    """Average blocks of `side` x `side` pixels of (..., height, width, channels).

    Remainders at the edges are cut off. A block with a value that was not observed is NaN.
    """
    *lead, height, width, channels = values.shape
    rows, columns = height // side, width // side
    kept = values[..., : rows * side, : columns * side, :]
    blocks = kept.reshape(*lead, rows, side, columns, side, channels)
    means: Floats = blocks.mean(axis=(-4, -2), dtype=np.float64)
    return means


@dataclass(frozen=True)
class Flatness:
    """A rank histogram, and the p-value of its flatness."""

    share: Floats  # (bins,), sums to 1
    reliability: float  # mean distance of the shares from 1 / bins
    p_value: float  # NaN with fewer than two units


def flatness(counts: Floats) -> Flatness:
    """Test whether ranks, counted as (units, bins), are flat; the units are independent.

    Ranks within a unit (the pixels of one video) depend on each other, so Pearson's chi-square is
    divided by its mean design effect over the units and referred to F with (bins - 1) and
    (bins - 1)(units - 1) degrees of freedom (Rao & Scott 1984; Thomas & Rao 1987).
    """
    from scipy import stats

    units, bins = counts.shape
    total = counts.sum()
    if total == 0:
        return Flatness(np.full(bins, np.nan), float("nan"), float("nan"))
    share = counts.sum(axis=0) / total
    reliability = float(np.abs(share - 1 / bins).mean())
    if units < 2:
        return Flatness(share, reliability, float("nan"))
    residual = counts - counts.sum(axis=1, keepdims=True) * share
    variance = units / (units - 1) * (residual**2).sum(axis=0) / total**2
    design = float((variance * total * bins).sum() / (bins - 1))
    square = float(total * bins * ((share - 1 / bins) ** 2).sum())
    if design == 0:
        return Flatness(share, reliability, 1.0 if square == 0 else 0.0)
    ratio = square / design / (bins - 1)
    p = float(stats.f.sf(ratio, bins - 1, (bins - 1) * (units - 1)))
    return Flatness(share, reliability, p)


def contingency(
    forecast: NDArray[np.bool_], observed: Values, threshold: float
) -> dict[str, Floats]:
    """Count hits, misses and false alarms of `forecast` events over height and width.

    An event is a value at or above `threshold`; unobserved values count for nothing. Of (...,
    height, width, channels); the results keep the other axes. With h hits, m misses, f false
    alarms: CSI = h / (h + m + f), POD = h / (h + m), FAR = f / (h + f) (Schaefer 1990).
    """
    event, known = observed >= threshold, np.isfinite(observed)
    counts = {
        "hits": forecast & event,
        "misses": ~forecast & event,
        "false_alarms": forecast & ~event & known,
    }
    return {name: each.sum(axis=(-3, -2)).astype(np.float64) for name, each in counts.items()}


def fractions_skill(probability: Values, observed: Values, threshold: float, side: int) -> Floats:
    """Sum squared error and reference of the fractions skill score, on a new first axis.

    FSS = 1 - sum of the first / sum of the second (Roberts & Lean 2008). `probability` is the
    share of members at or above `threshold`; both are averaged over blocks of `side`.
    """
    happened = np.where(np.isfinite(observed), observed >= threshold, np.nan)
    fraction, truth = pooled(probability, side), pooled(happened, side)
    axes = (-3, -2)
    known = np.isfinite(truth)
    error = np.where(known, (fraction - truth) ** 2, 0).sum(axis=axes)
    reference = np.where(known, fraction**2 + truth**2, 0).sum(axis=axes)
    return np.stack([error, reference])


def radial_spectrum(fields: Values) -> Floats:
    """Compute power by whole radial wavenumber.

    (..., height, width, channels) -> (..., bins, channels). Mean of |FFT|^2 / (height width)^2 over
    the ring |k| in [n - 1/2, n + 1/2) for n from 1 to half of the shorter side, k in cycles over
    that side (Ruzanski & Chandrasekar 2011).
    """
    height, width = fields.shape[-3:-1]
    shorter = min(height, width)
    power = np.abs(np.fft.fft2(fields, axes=(-3, -2))) ** 2 / (height * width) ** 2
    rows = np.fft.fftfreq(height)[:, None] * shorter
    columns = np.fft.fftfreq(width)[None, :] * shorter
    ring = np.rint(np.hypot(rows, columns)).astype(int)
    bins = [power[..., ring == n, :].mean(axis=-2) for n in range(1, shorter // 2 + 1)]
    spectrum: Floats = np.stack(bins, axis=-2)
    return spectrum


def reliability_counts(
    probability: Values, observed: Values, threshold: float, bins: Sequence[float]
) -> Floats:
    """Count forecasts, their summed probability and events, by bin of probability: (3, bins).

    The reliability diagram is events over forecasts against mean probability (Wilks 2019).
    """
    known = np.isfinite(observed)
    p, event = probability[known], observed[known] >= threshold
    place = np.clip(np.digitize(p, bins) - 1, 0, len(bins) - 2)
    count = len(bins) - 1
    return np.stack([np.bincount(place, weights, minlength=count) for weights in (None, p, event)])
