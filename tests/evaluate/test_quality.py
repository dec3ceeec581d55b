"""PSNR against its formula and against scikit-image's."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from sdevid.evaluate.quality import CEILING, decibels, squared_error


def psnr(predicted, true):
    return decibels(squared_error(predicted, true))


@pytest.mark.parametrize("error", [0.1, 0.01])
def test_a_constant_error_of_e_is_minus_twenty_log_e(error):
    true = np.full((3, 8, 8, 1), 0.5)
    np.testing.assert_allclose(psnr(true + error, true), -20 * np.log10(error))


def test_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 16, 16, 3))
    want = [peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(b, a), want)


def test_equal_frames_reach_the_ceiling_and_one_frame_serves_many():
    true = np.random.default_rng(1).random((2, 5, 8, 8, 1))
    assert (psnr(true, true) == CEILING).all()
    assert psnr(true[0, 0], true).shape == (2, 5)
