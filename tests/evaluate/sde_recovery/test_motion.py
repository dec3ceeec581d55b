"""Statistics of motion on paths that follow their SDE, and on paths that do not."""

import numpy as np
import pytest

from sdevid.data.synthetic import DoubleWell, OrnsteinUhlenbeck
from sdevid.evaluate.sde_recovery.motion import compare, motion_statistics, simulate_truth

INTERVAL = 0.125


def draw_paths(sde, seed, number=400, frames=64):
    return sde.simulate(np.random.default_rng(seed), number, INTERVAL * np.arange(frames))


def test_true_motion_has_ratios_of_one():
    well = DoubleWell()
    entry = compare(draw_paths(well, 1), draw_paths(well, 2, frames=16), INTERVAL, well, seed=0)
    assert entry["ratio_to_truth"]["generated"]["variance"] == pytest.approx(1, abs=0.08)
    assert entry["ratio_to_truth"]["generated"]["squared_diffusion"] == pytest.approx(1, abs=0.04)
    assert entry["ratio_to_truth"]["generated"]["crossings"] == pytest.approx(1, abs=0.25)
    assert entry["curve_error"]["generated"]["drift"] < 0.15


def test_frozen_and_wild_motion_are_told_from_true_motion():
    well = DoubleWell()
    slow = compare(0.5 * draw_paths(well, 1), draw_paths(well, 2), INTERVAL, well, seed=0)[
        "ratio_to_truth"
    ]
    assert slow["generated"]["variance"] == pytest.approx(0.25, abs=0.03)
    assert slow["generated"]["squared_diffusion"] == pytest.approx(0.25, abs=0.02)


def test_truth_at_the_frame_interval_differs_from_the_exact():
    ou = OrnsteinUhlenbeck(theta=2.0, sigma=0.5)
    entry = compare(draw_paths(ou, 1), draw_paths(ou, 2), INTERVAL, ou, seed=0)
    decay = np.exp(-2 * INTERVAL)
    at_interval = (1 - decay**2) / (2 * 2.0 * INTERVAL)  # of sigma^2
    assert entry["ratio_to_exact"]["truth"]["squared_diffusion"] == pytest.approx(
        at_interval, rel=0.01
    )
    assert entry["statistics"]["exact"]["squared_diffusion"] == pytest.approx(0.25)


def test_crossings_and_shares_of_a_known_path():
    paths = np.tile([-1.0, 1.0], (3, 8))
    estimate = motion_statistics(paths, INTERVAL, DoubleWell()).statistics
    assert estimate["crossings"].mean == pytest.approx(63)
    assert estimate["right_share"].mean == pytest.approx(0.5)


def test_lost_frames_are_counted_and_harm_nothing_else():
    well = DoubleWell()
    paths = draw_paths(well, 3)
    paths[:, ::10] = np.nan
    estimate = motion_statistics(paths, INTERVAL, well).statistics
    assert estimate["lost"].mean == pytest.approx(7 / 64)
    assert estimate["variance"].mean == pytest.approx(well.stationary_variance(), rel=0.1)


def test_simulated_truth_has_the_stationary_variance():
    for sde in (DoubleWell(), OrnsteinUhlenbeck()):
        variance = simulate_truth(sde, INTERVAL, seed=0).statistics["variance"]
        assert abs(variance.mean - sde.stationary_variance()) < 4 * variance.standard_error
