"""The drawn motion has the law that it is said to have, and is where it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.data.synthetic import (
    GROUND,
    HALF_WIDTH,
    DoubleWell,
    Motion,
    OrnsteinUhlenbeck,
    draw,
    from_truth,
)

TIMES = np.arange(17) / 8
PATHS = 20_000


@pytest.mark.parametrize("sde", [DoubleWell(), OrnsteinUhlenbeck(), OrnsteinUhlenbeck(2, 0.5, 1)])
def test_paths_are_stationary_with_the_stated_variance(sde):
    path = sde.simulate(np.random.default_rng(0), PATHS, TIMES)
    error = 4 * sde.stationary_variance() * np.sqrt(2 / PATHS)
    for column in (path[:, 0], path[:, 8], path[:, 16]):
        assert column.var() == pytest.approx(sde.stationary_variance(), abs=error)


def test_ou_has_its_correlation_in_time():
    sde = OrnsteinUhlenbeck(theta=1.5, mean=0.3, sigma=0.6)
    path = sde.simulate(np.random.default_rng(1), PATHS, TIMES)
    for lag in (1, 8, 16):
        got = np.corrcoef(path[:, 0], path[:, lag])[0, 1]
        assert got == pytest.approx(np.exp(-1.5 * TIMES[lag]), abs=4 / np.sqrt(PATHS))


@pytest.mark.parametrize("sde", [DoubleWell(), OrnsteinUhlenbeck()])
def test_short_steps_show_drift_and_diffusion(sde):
    """E[dX | X] / dt and Var[dX | X] / dt over a step so short that neither changes."""
    dt = 1e-3
    path = sde.simulate(np.random.default_rng(2), 200_000, np.array([0.0, dt]))
    x, step = path[:, 0], np.diff(path)[:, 0]
    assert step.var() / dt == pytest.approx(sde.diffusion(x[:1])[0] ** 2, rel=0.01)
    slope = (step * sde.drift(x)).sum() / (dt * (sde.drift(x) ** 2).sum())
    error = sde.diffusion(x[:1])[0] / np.sqrt(dt * (sde.drift(x) ** 2).sum())
    assert slope == pytest.approx(1, abs=4 * error)


def test_well_rests_at_its_wells_and_barrier():
    np.testing.assert_allclose(DoubleWell().drift(np.array([-1.0, 0.0, 1.0])), 0)


@pytest.mark.parametrize("size", [32, 64])
def test_disc_lies_where_its_position_says(size):
    positions = np.array([[0.0, 0.0], [1.0, -0.5], [-1.23, 0.77]])
    video = draw(positions, size).astype(float)[..., 0] - GROUND
    pixel = np.arange(size) - (size - 1) / 2
    weight = video.sum((1, 2))
    x = (video * pixel).sum((1, 2)) / weight
    y = (video * pixel[:, None]).sum((1, 2)) / weight
    got = np.stack([x, y], -1) * 2 * HALF_WIDTH / size
    np.testing.assert_allclose(got, positions, atol=0.01)
    assert (weight / 215 / size**2) == pytest.approx(np.pi / 64, rel=0.02)


def test_truth_names_the_motion():
    motion = Motion(DoubleWell(k=2.0), OrnsteinUhlenbeck(sigma=0.4))
    assert from_truth(motion.truth()) == motion
    assert from_truth(Motion(DoubleWell()).truth()) == Motion(DoubleWell())
