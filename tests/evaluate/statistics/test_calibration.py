"""Ensembles that are calibrated, too narrow and biased, and the CRPS of a Gaussian."""

import numpy as np
import pytest
from scipy.stats import chi2

from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.calibration import ranks, spread_skill
from sdevid.evaluate.statistics.estimate import mean_over


def case(width, seed=0, clips=400, leads=6, members=64):
    """Truth and ensemble about the same centres; the ensemble `width` times as wide."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((clips, leads))
    truth = centre + rng.standard_normal((clips, leads))
    return centre + width * rng.standard_normal((members, clips, leads)), truth


def test_calibrated_ensembles_have_spread_as_skill_flat_ranks():
    samples, truth = case(1.0)
    estimate = spread_skill(samples, truth)
    assert abs(estimate.mean - 1) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.03
    histogram = ranks(samples.reshape(64, -1), truth.ravel(), 13)
    assert histogram.p_value > 1e-3
    assert histogram.cases == truth.size
    assert histogram.share.sum() == pytest.approx(1)
    # each bin's share has standard deviation sqrt(p (1 - p) / n); its mean distance is 0.8 of that
    assert histogram.reliability < 2 * 0.8 * np.sqrt(1 / 13 * 12 / 13 / truth.size)


@pytest.mark.parametrize(("width", "ends"), [(0.5, 3.0), (2.0, 0.3)])
def test_narrow_and_wide_ensembles_are_distinguished(width, ends):
    samples, truth = case(width)
    estimate = spread_skill(samples, truth)
    assert estimate.mean == pytest.approx(width, rel=0.08)
    histogram = ranks(samples.reshape(64, -1), truth.ravel(), 13)
    assert histogram.p_value < 1e-6
    outer = 13 * (histogram.share[0] + histogram.share[-1]) / 2
    assert (outer > ends) == (width < 1)


def test_p_values_of_flat_ranks_are_even():
    values = [
        ranks(*(part.reshape(*part.shape[:-2], -1) for part in case(1.0, seed, 200, 1, 7)), 8)
        for seed in range(200)
    ]
    below = np.mean([one.p_value < 0.25 for one in values])
    assert abs(below - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 200)
    one = values[0]
    assert one.p_value == pytest.approx(chi2.sf(one.chi_square, 7), rel=1e-9)


def test_lost_cases_are_left_out():
    samples, truth = case(1.0)
    samples[3, 0, 0] = truth[1, 1] = np.nan
    assert ranks(samples.reshape(64, -1), truth.ravel(), 5).cases == truth.size - 2
    assert np.isfinite(spread_skill(samples, truth).mean)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = mean_over(rng.exponential(size=80)).interval
        held += low < 1 < high
    assert abs(held / 300 - 0.95) < 0.06  # 4 errors of 0.0126, and percentiles fall short a little


def test_bootstrap_of_a_mean_has_its_standard_error():
    units = np.random.default_rng(1).standard_normal(200)
    estimate = bootstrap(200, lambda weight: weight @ units / 200)
    assert estimate.mean == pytest.approx(units.mean())
    assert estimate.standard_error == pytest.approx(units.std() / np.sqrt(200), rel=0.15)
