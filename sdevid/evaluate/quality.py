"""Peak signal-to-noise ratio of predicted frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.measured import Floats

CEILING = 100.0  # dB, given to an error below 1e-10, so that means stay finite


def squared_error(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Floats:
    """Mean square over the pixels of frames (..., height, width, channels) in [0, 1].

    The two broadcast; the result has the axes before height.
    """
    error: Floats = np.square(np.subtract(predicted, true, dtype=np.float64)).mean((-3, -2, -1))
    return error


def decibels(error: Floats) -> Floats:
    """PSNR in dB of a mean squared error of values in [0, 1]: -10 log10 of it.

    Take the mean over a clip's frames first: of frames by themselves, one that is copied exactly
    because nothing moved would outweigh all others.
    """
    ratio: Floats = -10 * np.log10(np.maximum(error, 10 ** (-CEILING / 10)))
    return ratio
