"""What moves steadily warps onto itself; what flickers does not."""

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from sdevid.evaluate.statistics.bootstrap import ratio_of_means
from sdevid.evaluate.statistics.warping import warping_error


def moving(seed, frames=5, flicker=0.0):
    """Smooth texture that moves by a fraction of a pixel a frame."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.standard_normal((48, 48)), 3)
    texture = 0.5 + 0.4 * texture / np.abs(texture).max()
    result = [
        shift(texture, (0.6 * t, -0.4 * t), mode="nearest")[8:40, 8:40] for t in range(frames)
    ]
    result = np.stack(result) + flicker * rng.standard_normal((frames, 1, 1))
    return np.rint(255 * result.clip(0, 1)).astype(np.uint8)[..., None]


def test_warping_error_of_steady_motion_is_far_below_change():
    video = np.stack([moving(0), moving(1)])
    error = warping_error(video, "")
    apart = (np.diff(video / 255.0, axis=1) ** 2).mean(axis=(1, 2, 3, 4))
    assert (error < 0.1 * apart).all()


def test_still_video_has_none():
    video = np.repeat(moving(2)[None, :1], 4, axis=1)
    assert warping_error(video, "")[0] < 1e-10


def test_flicker_raises_the_ratio():
    steady = warping_error(np.stack([moving(seed) for seed in range(6)]), "")
    restless = warping_error(np.stack([moving(seed, flicker=0.05) for seed in range(6)]), "")
    ratio = ratio_of_means(restless, steady)
    assert ratio.interval[0] > 3
    assert abs(ratio_of_means(steady, steady).mean - 1) < 1e-12


def test_channels_are_averaged():
    grey = moving(3)
    colour = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(
        warping_error(colour[None], ""), warping_error(grey[None], ""), rtol=1e-4
    )
