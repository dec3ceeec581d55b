"""Video with missing values: its scale, what is filled, and masks that are laid over sets."""

import numpy as np

from sdevid.evaluate.metrics.failures import centroid, compared
from sdevid.evaluate.statistics.contrast import centre_of_contrast
from sdevid.evaluate.statistics.observed import (
    filled,
    in_unit_range,
    last_observed,
    masked_like,
    missing,
)
from sdevid.evaluate.statistics.warping import warping_error
from sdevid.sample.write import CHEQUER, shown

NAN = np.nan


def film(*levels):
    """Frames (time, 1, 2, 1) of two pixels each."""
    return np.array(levels, np.float32).reshape(-1, 1, 2, 1)


def test_grey_levels_and_transformed_values_share_a_scale():
    np.testing.assert_allclose(in_unit_range(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1])
    values = np.array([-0.5, NAN, 1.5], np.float32)
    np.testing.assert_array_equal(in_unit_range(values), values)  # beyond the range is kept
    assert missing(np.zeros(3, np.uint8)) is None
    assert missing(np.zeros(3, np.float32)) is None
    np.testing.assert_array_equal(missing(values), [False, True, False])


def test_missing_pixels_take_their_last_value_else_their_next():
    frames = film([1, NAN], [NAN, NAN], [3, 5])
    np.testing.assert_array_equal(filled(frames), film([1, 5], [1, 5], [3, 5]))
    never = film([2, NAN], [4, NAN])
    np.testing.assert_array_equal(filled(never), film([2, 3], [4, 3]))
    last = last_observed(film([1, 2], [7, NAN], [NAN, NAN])[None])
    np.testing.assert_array_equal(last[0], film([7, 2]))


def test_sets_bear_the_masks_of_the_real_videos():
    real = film([0.5, NAN], [NAN, 0.25])
    np.testing.assert_array_equal(masked_like(real, real), film([0.5, 0], [0, 0.25]))
    generated = np.full(real.shape, 9, np.uint8)
    np.testing.assert_array_equal(masked_like(generated, real).ravel(), [9, 0, 0, 9])
    assert masked_like(generated, generated) is generated


def test_missing_pixels_are_chequered_for_the_eye():
    frame = np.full((1, 8, 8, 1), 0.5, np.float32)
    frame[:, :4] = NAN
    pixels = shown(frame)
    assert set(np.unique(pixels[:, :4])) == set(CHEQUER)
    assert (pixels[:, 4:] == 128).all()


def test_centre_of_contrast_leaves_out_what_is_missing():
    frame = np.zeros((1, 16, 16, 1), np.float32)
    frame[0, 3, 4] = 1.0
    frame[0, 9:, 9:] = NAN
    np.testing.assert_allclose(centre_of_contrast(frame), [[4, 3]])


def test_warping_error_of_a_still_film_is_that_of_its_observed_pixels():
    """A still film warps onto itself, whatever comes and goes behind a mask."""
    rng = np.random.default_rng(0)
    still = np.repeat(rng.random((1, 1, 24, 24, 1)).astype(np.float32), 4, axis=1)
    flicker = still.copy()
    flicker[:, ::2, 8:16, 8:16] = 0
    assert warping_error(flicker, "flow")[0] > 1e-4
    flicker[:, ::2, 8:16, 8:16] = NAN
    np.testing.assert_allclose(warping_error(flicker, "flow"), warping_error(still, "flow"))
    assert np.isnan(warping_error(np.full_like(still, NAN), "flow")).all()


def test_parts_of_a_model_are_compared_where_the_real_frames_are_observed():
    """Brightness, PSNR and shift are those of the frames without their masked half."""
    import torch

    def frames(at):
        picture = torch.full((1, 1, 1, 12, 12), 0.25)
        picture[..., 5, at] = 1.0
        return picture

    real, before = frames(4), frames(2)
    for picture in (real, before):
        picture[..., 8:, :] = NAN
    generated, from_before = frames(4), frames(2)
    generated[..., 8:, :] = 1.0  # behind the mask
    totals = compared("x", (generated, from_before), (real, before))
    np.testing.assert_allclose(totals["shift_with_x"], totals["shift_real_x"])
    np.testing.assert_allclose(totals["shift_real_x"], 4.0)  # two pixels, squared
    np.testing.assert_allclose(totals["brightness_x"], totals["brightness_real_x"])
    np.testing.assert_allclose(totals["sharpness_x"], totals["sharpness_real_x"])
    assert totals["psnr_x"] == 100.0
    assert np.isfinite(centroid(real)).all()
