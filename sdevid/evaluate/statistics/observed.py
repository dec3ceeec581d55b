"""Video with missing values: in one scale, filled for what takes numbers alone, masked alike.

Metrics take video as uint8, or as float32 in the range of its transform, 0 for `low` and 1 for
`high`, with NaN where nothing was observed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]  # uint8 pixels, or float32 in the transform's range with NaN
Unit = NDArray[np.float32]


def in_unit_range(video: Values) -> Unit:
    """Convert uint8 to [0, 1]; leave values in their transform's range as they are, NaN kept."""
    if video.dtype == np.uint8:
        return np.divide(video, 255, dtype=np.float32)
    return video.astype(np.float32, copy=False)


def missing(video: Values) -> NDArray[np.bool_] | None:
    """Tell which values were not observed; None where all were."""
    if video.dtype == np.uint8:
        return None
    absent: NDArray[np.bool_] = np.isnan(video)
    return absent if absent.any() else None


def last_observed(frames: Unit) -> Unit:
    """Take the last value of each pixel of (clips, time, ...); NaN where none was ever observed.

    Returns (clips, 1, ...).
    """
    last = frames[:, -1:].copy()
    for k in range(frames.shape[1] - 2, -1, -1):
        np.copyto(last, frames[:, k : k + 1], where=np.isnan(last))
    return last


def filled(frames: Unit) -> Unit:
    """Fill NaN of (time, ...) by the pixel's last value, else its next, else the mean of all."""
    if not np.isnan(frames).any():
        return frames
    complete = frames.copy()
    for order in (range(1, len(frames)), range(len(frames) - 2, -1, -1)):
        for k in order:
            near = complete[k - 1] if order.step > 0 else complete[k + 1]
            np.copyto(complete[k], near, where=np.isnan(complete[k]))
    known = np.isfinite(complete)
    mean = complete[known].mean() if known.any() else np.float32(0)
    np.copyto(complete, mean, where=~known)
    return complete


def masked_like(video: Values, real: Values, value: float = 0.0) -> Values:
    """Set to `value`, in [0, 1], what was not observed in `real` or in `video` itself.

    Networks take no NaN; where sets of video bear the same masks, the masks tell them not apart.
    """
    absent = missing(real)
    own = missing(video)
    if absent is None and own is None:
        return video
    masks = [mask for mask in (absent, own) if mask is not None]
    every = masks[0] if len(masks) == 1 else masks[0] | masks[1]
    fill = round(255 * value) if video.dtype == np.uint8 else value
    return np.where(every, video.dtype.type(fill), video)
