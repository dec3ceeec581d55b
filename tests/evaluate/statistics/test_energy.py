"""The energy score against closed forms for Gaussians."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.evaluate.statistics.energy import energy_score


def gaussian_crps(y: float, sigma: float) -> float:
    """CRPS of N(0, sigma^2), which is the energy score in one dimension (Gneiting et al. 2005)."""
    z = y / sigma
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return sigma * (z * math.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize(("y", "sigma"), [(0.0, 1.0), (0.7, 0.5), (-2.0, 1.5)])
def test_one_dimensional_gaussian_has_its_crps(y, sigma):
    samples = sigma * np.random.default_rng(0).standard_normal((1500, 40, 1))
    scores = energy_score(samples, np.full((40, 1), y))
    error = scores.std(ddof=1) / np.sqrt(40)
    assert abs(scores.mean() - gaussian_crps(y, sigma)) < 4 * error


def test_standard_gaussian_in_the_plane_at_its_centre():
    samples = np.random.default_rng(1).standard_normal((1500, 40, 2))
    scores = energy_score(samples, np.zeros((40, 2)))
    exact = np.sqrt(np.pi / 2) * (1 - 1 / np.sqrt(2))  # E|X| - E|X - X'| / 2
    assert abs(scores.mean() - exact) < 4 * scores.std(ddof=1) / np.sqrt(40)


def test_expectation_does_not_depend_on_the_number_of_samples():
    rng = np.random.default_rng(2)
    few = energy_score(rng.standard_normal((2, 40_000, 1)), np.zeros((40_000, 1)))
    exact = gaussian_crps(0.0, 1.0)
    assert abs(few.mean() - exact) < 4 * few.std(ddof=1) / np.sqrt(few.size)


@given(x=st.floats(-5, 5), y=st.floats(-5, 5))
def test_point_forecast_scores_its_distance(x, y):
    score = energy_score(np.array([[[x, y]]]), np.zeros((1, 2)))
    assert score[0] == pytest.approx(np.hypot(x, y))


def test_lost_samples_are_left_out_and_a_lost_truth_is_no_score():
    samples = np.array([[[0.0]], [[2.0]], [[np.nan]]])
    assert energy_score(samples, np.array([[1.0]]))[0] == pytest.approx(
        energy_score(samples[:2], np.array([[1.0]]))[0]
    )
    assert np.isnan(energy_score(samples, np.array([[np.nan]]))[0])
    assert np.isnan(energy_score(samples[2:], np.array([[1.0]]))[0])
