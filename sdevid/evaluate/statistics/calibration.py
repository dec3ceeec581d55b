"""Calibration of ensembles: spread over error, and rank histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import Estimate, Floats


@dataclass(frozen=True)
class RankHistogram:
    """Rank histogram: relative frequency of the observation's rank in its ensemble."""

    share: Floats  # (bins,), sums to 1
    cases: int
    reliability: float  # mean distance of the shares from 1 / bins
    chi_square: float
    p_value: float  # of a flat histogram, where the cases are independent


def spread_skill(samples: Floats, observed: Floats) -> Estimate:
    """Estimate spread over error of ensembles (members, clips, leads); 1 where calibrated.

    The root of the mean ensemble variance times (m + 1) / m, over the root mean square error of
    the ensemble mean; error and interval by bootstrap over the clips (Fortin et al. 2014).
    """
    members = len(samples)
    variance = samples.var(axis=0, ddof=1) * (members + 1) / members
    error = (samples.mean(axis=0) - observed) ** 2
    valid = np.isfinite(variance) & np.isfinite(error)
    spread = np.where(valid, variance, 0).sum(axis=1)
    skill = np.where(valid, error, 0).sum(axis=1)

    def statistic(weight: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Floats = np.sqrt(weight @ spread / (weight @ skill))
        return ratio

    return bootstrap(len(observed), statistic)


def ranks(samples: Floats, observed: Floats, bins: int) -> RankHistogram:
    """Count the ranks of `observed` (cases,) among `samples` (members, cases) in `bins` equal bins.

    The rank is jittered evenly within its step, so that bins need not divide the members. Cases
    with a NaN are left out. Hamill 2001; the reliability index: Delle Monache et al. 2006.
    """
    kept = np.isfinite(samples).all(axis=0) & np.isfinite(observed)
    below = (samples[:, kept] < observed[kept]).sum(axis=0)
    jitter = np.random.default_rng(0).random(below.size)
    place = (below + jitter) / (len(samples) + 1)
    count: NDArray[np.int64] = np.bincount((place * bins).astype(int), minlength=bins)
    cases = int(count.sum())
    if cases == 0:
        nothing = float("nan")
        return RankHistogram(np.full(bins, np.nan), 0, nothing, nothing, nothing)
    share = count / cases
    square = float(((count - cases / bins) ** 2).sum() / (cases / bins))
    return RankHistogram(
        share, cases, float(np.abs(share - 1 / bins).mean()), square, _tail(square, bins - 1)
    )


def _tail(square: float, freedom: int) -> float:
    """Compute the chance of a larger chi-square with so many degrees of freedom."""
    import torch

    half = torch.tensor([freedom / 2, square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
