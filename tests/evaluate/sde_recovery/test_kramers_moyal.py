"""The estimator on processes whose increments have a known law."""

import numpy as np
import pytest

from sdevid.data.pendulum import Pendulum
from sdevid.data.synthetic import OrnsteinUhlenbeck
from sdevid.evaluate.sde_recovery.kramers_moyal import (
    FEWEST,
    coefficients,
    overall_squared_diffusion,
)

OU = OrnsteinUhlenbeck(theta=1.5, mean=0.3, sigma=0.8)
INTERVAL = 0.125
DECAY = np.exp(-OU.theta * INTERVAL)
SQUARED = OU.stationary_variance() * (1 - DECAY**2) / INTERVAL  # of the increments' own law


@pytest.fixture(scope="module")
def paths():
    return OU.simulate(np.random.default_rng(0), 2000, INTERVAL * np.arange(64))


def test_ou_drift_and_squared_diffusion_at_a_finite_interval(paths):
    estimate = coefficients(paths, INTERVAL, np.linspace(-0.7, 1.3, 11))
    drift = (1 - DECAY) * (OU.mean - estimate.position) / INTERVAL
    assert (np.abs(estimate.drift - drift) < 4 * estimate.drift_error).all()
    assert (
        np.abs(estimate.squared_diffusion - SQUARED) < 4 * estimate.squared_diffusion_error
    ).all()
    assert estimate.drift_error.max() < 0.05
    assert estimate.squared_diffusion_error.max() < 0.03


def test_errors_are_those_of_repeated_estimates():
    edges = np.linspace(-0.7, 1.3, 6)
    rng = np.random.default_rng(1)
    results = [
        coefficients(OU.simulate(rng, 100, INTERVAL * np.arange(16)), INTERVAL, edges)
        for _ in range(200)
    ]
    for name in ("drift", "squared_diffusion"):
        spread = np.std([getattr(one, name) for one in results], axis=0)
        stated_error = np.mean([getattr(one, f"{name}_error") for one in results], axis=0)
        np.testing.assert_allclose(stated_error, spread, rtol=0.25)


def test_straight_drift_leaves_nothing_in_the_diffusion():
    """Cells have a width: a level alone would count the drift's slope as diffusion."""
    start = np.random.default_rng(2).uniform(-1, 1, (400, 1))
    paths = np.concatenate([start, start - 2.0 * start * INTERVAL], axis=1)
    estimate = coefficients(paths, INTERVAL, np.linspace(-1, 1, 5))
    np.testing.assert_allclose(estimate.squared_diffusion, 0, atol=1e-12)
    np.testing.assert_allclose(estimate.drift, -2 * estimate.position, atol=1e-9)


def test_cells_with_few_increments_are_left_open():
    paths = np.random.default_rng(3).uniform(0, 1, (FEWEST - 1, 2))
    estimate = coefficients(paths, INTERVAL, np.array([0.0, 1.0, 2.0]))
    assert np.isnan(estimate.drift).all()
    assert estimate.count.tolist() == [FEWEST - 1, 0]


def test_lost_positions_cost_only_their_own_increments(paths):
    torn = paths[:200].copy()
    torn[:, 20] = np.nan
    estimate = coefficients(torn, INTERVAL, np.array([-9.0, 9.0]))
    assert estimate.count[0] == 200 * 61


def test_overall_squared_diffusion_of_ou(paths):
    by_path = overall_squared_diffusion(paths, INTERVAL)
    error = by_path.std(ddof=1) / np.sqrt(len(by_path))
    assert abs(by_path.mean() - SQUARED) < 4 * error
    assert error < 0.01 * SQUARED


def test_overall_diffusion_of_a_slow_process_is_recovered():
    still = np.zeros((5, 10))
    assert np.nan_to_num(overall_squared_diffusion(still, INTERVAL)).max() == 0


def test_second_order_positions_show_force_and_noise():
    """At 1/64 s the bias is of the order of an interval's share of a period, 0.7 %."""
    sde, interval = Pendulum(), 1 / 64
    angle = sde.simulate(np.random.default_rng(4), 400, interval * np.arange(64))[..., 0]
    estimate = coefficients(angle, interval, np.linspace(-0.8, 0.8, 9), order=2)
    force = sde.drift(estimate.position)
    assert (np.abs(estimate.drift - force) < 4 * estimate.drift_error + 0.02 * np.abs(force)).all()
    np.testing.assert_allclose(estimate.squared_diffusion, sde.sigma**2, rtol=0.08)
    overall = overall_squared_diffusion(angle, interval, order=2)
    assert overall.mean() == pytest.approx(sde.sigma**2, rel=0.03)
