"""Peak signal-to-noise ratio and structural similarity of predicted frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.statistics.estimate import Floats

_WINDOW = 11  # pixels, of SSIM
CEILING = 100.0  # dB, given to an error below 1e-10, so that means stay finite


def squared_error(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Floats:
    """Compute the mean square over the observed pixels of frames in [0, 1].

    Frames are (..., height, width, channels), NaN where nothing was observed. The two broadcast;
    the result has the axes before height, and is NaN for a frame without an observed pixel.
    """
    square = np.square(np.subtract(predicted, true, dtype=np.float64))
    known = np.isfinite(square)
    if known.all():
        error: Floats = square.mean((-3, -2, -1))
        return error
    count, total = known.sum((-3, -2, -1)), np.where(known, square, 0).sum((-3, -2, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def decibels(error: Floats) -> Floats:
    """Convert mean squared errors of values in [0, 1] to PSNR, -10 log10 of them, in dB.

    Take the mean over a clip's frames first: of frames by themselves, one that is copied exactly
    because nothing moved would outweigh all others.
    """
    ratio: Floats = -10 * np.log10(np.maximum(error, 10 ** (-CEILING / 10)))
    return ratio


def structural_similarity(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Floats:
    """Compute mean SSIM of frames (..., height, width, channels) in [0, 1], by scikit-image.

    Wang et al. 2004 as published: a Gaussian window of 11 pixels, deviation 1.5. The two broadcast;
    the result has the axes before height. Windows that hold a missing pixel (NaN in either) do not
    count; NaN for frames without a whole window.
    """
    from skimage import metrics

    similarity: Any = metrics.structural_similarity
    a, b = np.broadcast_arrays(np.float32(predicted), np.float32(true))
    shape, frame = a.shape[:-3], a.shape[-3:]
    if min(frame[:2]) < _WINDOW:
        return np.full(shape, np.nan)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(a.reshape(-1, *frame), b.reshape(-1, *frame), strict=True)
    values = [
        _windows(x, y, window)
        if np.isnan(x).any() or np.isnan(y).any()
        else similarity(x, y, data_range=1.0, channel_axis=-1, **window)
        for x, y in pairs
    ]
    return np.array(values, np.float64).reshape(shape)


def _windows(x: NDArray[np.float32], y: NDArray[np.float32], window: dict[str, Any]) -> float:
    """Average SSIM over the windows in which every pixel is known."""
    from scipy.ndimage import maximum_filter
    from skimage import metrics

    similarity: Any = metrics.structural_similarity
    missing, edge = np.isnan(x) | np.isnan(y), _WINDOW // 2
    x, y = (np.where(missing, np.float32(0), part) for part in (x, y))
    _, scores = similarity(x, y, data_range=1.0, channel_axis=-1, full=True, **window)
    known = ~maximum_filter(missing, size=(_WINDOW, _WINDOW, 1))
    known, scores = (part[edge:-edge, edge:-edge] for part in (known, scores))
    return float(scores[known].mean()) if known.any() else float("nan")
