"""Peak signal-to-noise ratio of predicted frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.measured import Floats

CEILING = 100.0  # dB, given to an error below 1e-10, so that means stay finite


def psnr(predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Floats:
    """PSNR in dB of frames (..., height, width, channels) in [0, 1]: -10 log10 of the mean square.

    The two broadcast; the result has the axes before height.
    """
    error = np.square(np.subtract(predicted, true, dtype=np.float64)).mean(axis=(-3, -2, -1))
    ratio: Floats = -10 * np.log10(np.maximum(error, 10 ** (-CEILING / 10)))
    return ratio
