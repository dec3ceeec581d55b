"""Scores of one clip's forecast, by lead time and channel, and their means over source videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.ensembles.baselines import Forecast
from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.ensemble import (
    LEVELS,
    contingency,
    covered,
    crps,
    flatness,
    fractions_skill,
    pooled,
    probability_ranks,
    radial_spectrum,
    reliability_counts,
)
from sdevid.evaluate.statistics.estimate import Estimate, Floats, finite

POOLS = (1, 2, 4, 8)  # sides of the blocks, in pixels
BINS = 10  # of ranks, and of probabilities
SIDES = (1, 4, 16)  # of the fractions skill score

Totals = dict[str, Floats]  # of one clip: (frames ahead, channels, ...)


def clip_totals(
    forecast: Forecast, observed: NDArray[np.float32], thresholds: Sequence[float], seed: int
) -> Totals:
    """Sum scores over the observed pixels of one clip (frames ahead, height, width, channels).

    `pixels_*` count them; a forecast of one member has no spread, ranks or coverage.
    """
    samples, rng = forecast.samples, np.random.default_rng(seed)
    totals: Totals = {}
    for side in (side for side in POOLS if side <= min(observed.shape[1:3])):
        score = crps(
            pooled(samples, side), pooled(observed, side), fair=forecast.kind != "quantiles"
        )
        totals[f"crps_{side}"], totals[f"pixels_{side}"] = _sum(score)
    mean = samples.mean(axis=0, dtype=np.float64)
    totals["squared_error"], totals["pixels"] = _sum((mean - observed) ** 2)
    if forecast.kind != "point":
        members = len(samples)
        variance = samples.var(axis=0, ddof=1, dtype=np.float64) * (members + 1) / members
        totals["variance"] = _sum(np.where(np.isfinite(observed), variance, np.nan))[0]
        ranks = probability_ranks(samples, observed, rng)
        for level in LEVELS:
            totals[f"covered_{level:g}"] = _sum(covered(ranks, level))[0]
        totals["ranks"] = _rank_counts(ranks)
    for threshold in thresholds:
        totals |= _threshold_totals(samples, observed, threshold)
    return totals


def _sum(values: Floats) -> tuple[Floats, Floats]:
    """Sum and number of what is finite over height and width: (frames, channels) each."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=(1, 2)), known.sum(axis=(1, 2)).astype(np.float64)


def _rank_counts(ranks: Floats) -> Floats:
    """Count ranks (frames, height, width, channels) in bins: (frames, channels, bins)."""
    place = np.where(np.isfinite(ranks), np.minimum((ranks * BINS), BINS - 1), BINS).astype(int)
    counts: Floats = np.stack([(place == k).sum(axis=(1, 2)) for k in range(BINS)], axis=-1).astype(
        np.float64
    )
    return counts


def _threshold_totals(samples: Any, observed: Any, threshold: float) -> Totals:
    """Count events at or above `threshold`, forecast by majority or by share of members."""
    probability = (samples >= threshold).mean(axis=0)
    counts = contingency(probability >= 0.5, observed, threshold)
    name = f"{threshold:g}"
    totals = {f"{key}_{name}": value for key, value in counts.items()}
    for side in (side for side in SIDES if side <= min(observed.shape[1:3])):
        error, reference = fractions_skill(probability, observed, threshold, side)
        totals[f"fss_error_{name}_{side}"] = error
        totals[f"fss_reference_{name}_{side}"] = reference
    bins = np.linspace(0, 1, BINS + 1).tolist()
    totals[f"reliability_{name}"] = np.stack(
        [
            np.stack(
                [
                    reliability_counts(p[..., c], o[..., c], threshold, bins)
                    for c in range(observed.shape[-1])
                ]
            )
            for p, o in zip(probability, observed, strict=True)
        ]
    )
    return totals


def spectra(forecast: Forecast, observed: NDArray[np.float32]) -> Totals:
    """Compute the members' mean spectrum and the outcome's, (frames, channels, wavenumbers)."""
    filled = np.where(np.isfinite(observed), observed, 0)
    return {
        "spectrum": np.moveaxis(radial_spectrum(forecast.samples).mean(axis=0), -1, 1),
        "spectrum_observed": np.moveaxis(radial_spectrum(filled), -1, 1),
    }


class BySource:
    """Totals of all clips of one forecast, summed by source video."""

    def __init__(self, totals: Sequence[Totals], sources: Sequence[str]) -> None:
        self.names = sorted(set(sources))
        order = {name: k for k, name in enumerate(self.names)}
        rows = np.array([order[name] for name in sources])
        self.sums: dict[str, Floats] = {}
        for key in totals[0]:
            each = np.stack([one[key] for one in totals])
            summed = np.zeros((len(self.names), *each.shape[1:]))
            np.add.at(summed, rows, each)
            self.sums[key] = summed  # (sources, frames, channels, ...)

    def __contains__(self, key: str) -> bool:
        return key in self.sums

    def ratio(self, above: str, below: str, channel: int, root: bool = False) -> dict[str, Any]:
        """Divide sum by sum, at all lead times together and at each; take the `root` if asked."""
        a, b = (self.sums[key][:, :, channel] for key in (above, below))
        return self._entry(a, b, root)

    def skill(self, above: str, below: str, channel: int) -> dict[str, Any]:
        """Compute 1 - sum of `above` / sum of `below`."""
        a, b = (self.sums[key][:, :, channel] for key in (above, below))
        return self._entry(b - a, b)

    def ratio_to(self, other: BySource, above: str, below: str, channel: int) -> list[Any]:
        """Divide `ratio` by another forecast's of the same clips, at each lead time."""
        sums = [[one.sums[key][:, :, channel] for key in (above, below)] for one in (self, other)]

        def statistic(lead: int, weight: Floats) -> Floats:
            with np.errstate(divide="ignore", invalid="ignore"):
                own, its = [(weight @ a[:, lead]) / (weight @ n[:, lead]) for a, n in sums]
                share: Floats = own / its
            return share

        leads, units = range(sums[0][0].shape[1]), len(self.names)
        return [bootstrap(units, partial(statistic, lead)).as_json() for lead in leads]

    def shares(self, part: str, others: Sequence[str], channel: int) -> dict[str, Any]:
        """Divide `part` by the sum of it and `others`."""
        a = self.sums[part][:, :, channel]
        return self._entry(a, a + sum(self.sums[key][:, :, channel] for key in others))

    def ranks(self, channel: int) -> dict[str, Any]:
        """Compute the rank histogram over all lead times, and its test over the source videos."""
        flat = flatness(self.sums["ranks"][:, :, channel].sum(axis=1))
        return {
            "share": [finite(float(value)) for value in flat.share],
            "reliability_index": finite(flat.reliability),
            "p_value": finite(flat.p_value),
        }

    def mean_curve(self, key: str, channel: int) -> list[float | None]:
        """Average a curve over sources and lead times."""
        return [finite(float(v)) for v in self.sums[key][:, :, channel].mean(axis=(0, 1))]

    @staticmethod
    def _entry(a: Floats, b: Floats, root: bool = False) -> dict[str, Any]:
        def statistic(weight: Floats) -> Floats:
            with np.errstate(divide="ignore", invalid="ignore"):
                value: Floats = (weight @ a.sum(axis=1)) / (weight @ b.sum(axis=1))
            return np.sqrt(value) if root else value

        with np.errstate(divide="ignore", invalid="ignore"):
            leads = a.sum(axis=0) / b.sum(axis=0)
        leads = np.sqrt(leads) if root else leads
        estimate: Estimate = bootstrap(len(a), statistic)
        return estimate.as_json() | {"by_lead": [finite(float(value)) for value in leads]}
