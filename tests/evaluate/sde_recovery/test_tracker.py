"""The tracker on drawn discs whose position is known."""

import numpy as np
import pytest

from sdevid.data.synthetic import HALF_WIDTH, draw
from sdevid.evaluate.sde_recovery.tracker import positions


@pytest.mark.parametrize("size", [32, 64])
def test_finds_the_drawn_position_to_a_fraction_of_a_pixel(size):
    true = np.random.default_rng(0).uniform(-1.6, 1.6, (500, 2))
    estimate = positions(draw(true, size), HALF_WIDTH)
    pixel = 2 * HALF_WIDTH / size
    assert np.abs(estimate - true).max() < 0.06 * pixel


def test_tracker_in_haze_is_not_pulled_to_the_middle():
    true = np.full((1, 2), 1.2)
    clean = draw(true, 32).astype(float)
    estimate = positions((60 + 0.5 * clean).astype(np.uint8), HALF_WIDTH)
    assert np.abs(estimate - true).max() < 0.02


def test_tracker_under_tenfold_noise_errs_under_half_a_pixel():
    rng = np.random.default_rng(1)
    true = rng.uniform(-1.5, 1.5, (200, 2))
    noisy = draw(true, 32) + rng.normal(0, 8, (200, 32, 32, 1))
    estimate = positions(noisy.clip(0, 255).astype(np.uint8), HALF_WIDTH)
    assert np.sqrt(np.mean((estimate - true) ** 2)) < HALF_WIDTH / 32


def test_frame_without_a_disc_is_lost():
    blank = np.full((2, 3, 16, 16, 1), 90, np.uint8)
    assert np.isnan(positions(blank, HALF_WIDTH)).all()
    assert positions(blank, HALF_WIDTH).shape == (2, 3, 2)


def test_tracker_axes_are_right_and_down():
    estimate = positions(draw(np.array([[1.0, -0.5]]), 32), HALF_WIDTH)[0]
    assert estimate[0] == pytest.approx(1.0, abs=0.01)
    assert estimate[1] == pytest.approx(-0.5, abs=0.01)
