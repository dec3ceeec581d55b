"""Autocorrelation and first-passage times against the closed forms of an OU process."""

import numpy as np
import pytest

from sdevid.data.synthetic import DoubleWell, OrnsteinUhlenbeck
from sdevid.evaluate.sde_recovery.timescales import autocorrelation_time, first_passage_time

OVERSHOOT = 0.5826  # -zeta(1/2) / sqrt(2 pi): how far a walk seen at steps passes a level, in steps


def draw_paths(sde, seed, number, frames, interval):
    return sde.simulate(np.random.default_rng(seed), number, interval * np.arange(frames))


@pytest.mark.parametrize("theta", [0.5, 2.0])
def test_autocorrelation_time_of_ou_is_one_over_theta(theta):
    ou = OrnsteinUhlenbeck(theta=theta, mean=0.4, sigma=0.6)
    estimate = autocorrelation_time(draw_paths(ou, 0, 1500, 64, 0.125), 0.125, ou.mean)
    assert abs(estimate.mean - 1 / theta) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.05 / theta
    assert estimate.interval[0] < estimate.mean < estimate.interval[1]


def test_autocorrelation_time_beyond_the_paths_is_extrapolated():
    ou = OrnsteinUhlenbeck(theta=0.4)
    estimate = autocorrelation_time(
        draw_paths(ou, 1, 4000, 16, 0.125), 0.125, ou.mean
    )  # 1.9 s of 2.5 s
    assert abs(estimate.mean - 2.5) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.3


def test_autocorrelation_time_of_an_oscillation_is_the_cosines():
    rng = np.random.default_rng(2)
    phase, times = rng.uniform(0, 2 * np.pi, (400, 1)), np.arange(100) / 50
    estimate = autocorrelation_time(np.cos(2 * np.pi * times + phase), 1 / 50, 0.0)
    assert estimate.mean == pytest.approx(np.arccos(np.exp(-1)) / (2 * np.pi), abs=0.005)


def test_lost_frames_do_not_bias_the_autocorrelation_time():
    ou = OrnsteinUhlenbeck()
    paths = draw_paths(ou, 3, 1500, 64, 0.125)
    paths[np.random.default_rng(4).random(paths.shape) < 0.1] = np.nan
    estimate = autocorrelation_time(paths, 0.125, ou.mean)
    assert abs(estimate.mean - 1) < 4 * estimate.standard_error


def test_errors_are_those_of_repeated_estimates():
    ou, rng = OrnsteinUhlenbeck(), np.random.default_rng(5)
    times = np.arange(40) / 8
    estimates = [autocorrelation_time(ou.simulate(rng, 200, times), 1 / 8, 0.0) for _ in range(60)]
    stated_error = np.mean([one.standard_error for one in estimates])
    assert stated_error == pytest.approx(np.std([one.mean for one in estimates]), rel=0.3)


@pytest.mark.parametrize("horizon", [0.5, 1.0])
def test_first_passage_of_ou_has_its_closed_form(horizon):
    """Levels are passed between frames: both ends lie an overshoot of 0.58 steps further."""
    ou, interval, level = OrnsteinUhlenbeck(theta=1.0, sigma=0.5), 1 / 250, 0.35
    estimate = first_passage_time(
        draw_paths(ou, 6, 1500, 500, interval), interval, 0.0, level, horizon
    )
    beyond = 2 * OVERSHOOT * ou.sigma * np.sqrt(interval)
    exact = ou.passage_time(level + beyond, horizon)
    assert abs(estimate.mean - exact) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.03 * exact


def test_closed_form_of_ou_is_that_of_fine_simulation():
    ou, interval = OrnsteinUhlenbeck(theta=2.0, sigma=0.8), 1e-3
    paths = ou.simulate(
        np.random.default_rng(7), 4000, interval * np.arange(1001), start=np.full(4000, 0.3)
    )
    passed = np.where((paths <= 0).any(1), (paths <= 0).argmax(1), 1000) * interval
    exact = ou.passage_time(0.3 + OVERSHOOT * 0.8 * np.sqrt(interval), 1.0)
    assert abs(passed.mean() - exact) < 4 * passed.std() / np.sqrt(4000)


def test_paths_that_end_early_are_censored_and_bias_nothing():
    """Half of the paths are cut to a third: the estimate stays where it was."""
    well, rng = DoubleWell(k=2.0, sigma=1.2), np.random.default_rng(8)
    paths = well.simulate(rng, 3000, np.arange(60) / 16)
    whole = first_passage_time(paths, 1 / 16, 0.0, 0.8, 0.75)
    paths[::2, 20:] = np.nan
    cut = first_passage_time(paths, 1 / 16, 0.0, 0.8, 0.75)
    assert abs(cut.mean - whole.mean) < 4 * cut.standard_error


def test_first_passage_time_of_paths_that_never_pass_is_none():
    assert np.isnan(first_passage_time(np.ones((50, 20)), 0.1, 0.0, 0.5, 1.0).mean)
