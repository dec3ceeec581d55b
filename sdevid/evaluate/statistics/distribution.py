"""Distances between two sets of videos by their features: Frechet's, and a kernel's."""

from __future__ import annotations

import numpy as np

from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import LEVEL, Estimate, Floats


def frechet_distance(a: Floats, b: Floats) -> float:
    """Compute the Frechet distance of Gaussians fitted to features (videos, size).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2), in float64, with the roots taken of
    symmetric matrices by their eigenvalues, which stays real where a covariance is singular. It
    falls with the number of videos: compare at equal numbers. Dowson & Landau 1982; as FVD,
    Unterthiner et al. 2018.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = root @ cov_b @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((middle + middle.T) / 2), 0)).sum()
    apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(apart + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def resampled_frechet_distance(a: Floats, b: Floats, resamples: int = 64) -> Estimate:
    """Estimate `frechet_distance` with error and interval, by bootstrap over both sets of videos.

    A resample has fewer different videos, so its distance is larger: the spread of the resamples
    is laid about the distance itself.
    """
    value, rng = frechet_distance(a, b), np.random.default_rng(0)
    drawn = np.array(
        [
            frechet_distance(*(part[rng.integers(len(part), size=len(part))] for part in (a, b)))
            for _ in range(resamples)
        ]
    )
    low, high = value + np.percentile(drawn - drawn.mean(), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(value, float(drawn.std(ddof=1)), (float(low), float(high)))


def kernel_distance(a: Floats, b: Floats) -> Estimate:
    """Estimate the squared maximum mean discrepancy of features (videos, size).

    The kernel is (x.y / size + 1)^3. The estimate is unbiased: no video is compared with itself, so
    equal laws give 0 on average and half of the values are negative. Error and interval by
    bootstrap over the videos of both sets, where a video drawn twice is not compared with its
    double either; the error is up to twice too large where the laws are the same. Binkowski et al.
    2018.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    within_a, within_b, across = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    np.fill_diagonal(within_a, 0.0)
    np.fill_diagonal(within_b, 0.0)

    def statistic(weight: Floats) -> Floats:
        u, v = weight[:, : len(a)], weight[:, len(a) :]
        return _mean(u, within_a, u) + _mean(v, within_b, v) - 2 * _mean(u, across, v)

    return bootstrap((len(a), len(b)), statistic)


def _kernel(x: Floats, y: Floats) -> Floats:
    kernel: Floats = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _mean(u: Floats, kernel: Floats, v: Floats) -> Floats:
    """Average the kernel over pairs of different videos, each as often as it is drawn."""
    pairs = u.sum(axis=1) * v.sum(axis=1)
    if u is v:
        pairs = pairs - (u**2).sum(axis=1)
    mean: Floats = ((u @ kernel) * v).sum(axis=1) / pairs
    return mean
