"""PSNR and SSIM against their formulas and against scikit-image's."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from sdevid.evaluate.statistics.quality import (
    CEILING,
    decibels,
    squared_error,
    structural_similarity,
)


def psnr(predicted, true):
    return decibels(squared_error(predicted, true))


@pytest.mark.parametrize("error", [0.1, 0.01])
def test_constant_error_of_e_is_minus_twenty_log_e(error):
    true = np.full((3, 8, 8, 1), 0.5)
    np.testing.assert_allclose(psnr(true + error, true), -20 * np.log10(error))


def test_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 16, 16, 3))
    want = [peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(b, a), want)


def test_psnr_of_equal_frames_is_the_ceiling_and_broadcasts():
    true = np.random.default_rng(1).random((2, 5, 8, 8, 1))
    assert (psnr(true, true) == CEILING).all()
    assert psnr(true[0, 0], true).shape == (2, 5)


def test_ssim_of_flat_frames_has_its_formula():
    """Of constants a and b: (2 a b + c) / (a^2 + b^2 + c), c = 0.01^2 (Wang et al. 2004)."""
    a, b, c = 0.3, 0.6, 0.01**2
    estimate = structural_similarity(np.full((2, 3, 16, 16, 1), a), np.full((2, 3, 16, 16, 1), b))
    assert estimate.shape == (2, 3)
    np.testing.assert_allclose(estimate, (2 * a * b + c) / (a**2 + b**2 + c), rtol=1e-5)


def test_ssim_is_one_for_equal_frames_and_falls_with_noise():
    rng = np.random.default_rng(2)
    true = rng.random((3, 24, 24, 3))
    np.testing.assert_allclose(structural_similarity(true, true), 1)
    noisy = [
        structural_similarity(true + level * rng.standard_normal(true.shape), true).mean()
        for level in (0.05, 0.2)
    ]
    assert 1 > noisy[0] > noisy[1] > 0


def test_ssim_of_frames_below_its_window_is_nothing():
    true = np.random.default_rng(3).random((2, 4, 16, 16, 1))
    one = structural_similarity(true[:, :1], true)
    assert one.shape == (2, 4)
    np.testing.assert_allclose(one[:, 0], 1)
    assert np.isnan(structural_similarity(np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 1)))).all()


@pytest.mark.parametrize("error", [0.1, 0.01])
def test_masked_pixels_do_not_count_in_psnr(error):
    """Half of each frame is missing in the truth; what is predicted there is far off."""
    true, predicted = np.full((2, 3, 16, 16, 1), 0.5), np.full((2, 3, 16, 16, 1), 0.5 + error)
    true[..., 8:, :], predicted[..., 8:, :] = np.nan, 1e3
    np.testing.assert_allclose(psnr(predicted, true), -20 * np.log10(error))
    true[0, 1] = np.nan
    assert np.isnan(psnr(predicted, true)[0, 1])


def test_masked_windows_do_not_count_in_ssim():
    """Where pixels are known, SSIM is the formula's; what stands behind the mask is irrelevant."""
    a, b, c = 0.3, 0.6, 0.01**2
    true, predicted = np.full((2, 32, 32, 1), a), np.full((2, 32, 32, 1), b)
    true[:, :, 20:] = np.nan
    predicted[:, :, 20:] = np.random.default_rng(4).random((2, 32, 12, 1))
    want = (2 * a * b + c) / (a**2 + b**2 + c)
    np.testing.assert_allclose(structural_similarity(predicted, true), want, rtol=1e-4)
    assert np.isnan(structural_similarity(predicted, np.full_like(true, np.nan))).all()
