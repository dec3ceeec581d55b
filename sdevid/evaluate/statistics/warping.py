"""Temporal warping error: how far the next frame, taken back along the optical flow, is off."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Unit, Values, filled, in_unit_range


def warping_error(videos: Values, title: str) -> Floats:
    """Measure each video's warping error: mean squares of values in [0, 1].

    Videos are (number, time, height, width, channels), uint8 or with NaN where nothing was
    observed. The flow between two frames is the video's own, by iterative Lucas-Kanade (Le
    Besnerais & Champagnat 2005), with missing values filled in time. Pixels where forward and
    backward flow disagree (Sundaram et al. 2010), or that are missing or beside a missing one, are
    left out. Meaningful beside that of real video alone: still video has none (Lai et al. 2018).
    """
    errors = []
    for part in batches(range(len(videos)), 1, title):
        frames = in_unit_range(videos[part.start])
        whole = filled(frames)
        missing: NDArray[np.bool_] = np.isnan(frames.mean(axis=-1))
        steps = [
            _error(whole[k], whole[k + 1], missing[k] | missing[k + 1])
            for k in range(len(frames) - 1)
        ]
        errors.append(np.nanmean(steps) if np.isfinite(steps).any() else np.nan)
    return np.array(errors)


def _error(now: Unit, after: Unit, missing: NDArray[np.bool_]) -> float:
    from skimage import registration, transform

    flow: Any = registration.optical_flow_ilk
    warp: Any = transform.warp
    grey, grey_after = now.mean(axis=-1), after.mean(axis=-1)
    forward, backward = flow(grey, grey_after), flow(grey_after, grey)
    place = np.stack(np.meshgrid(*map(np.arange, grey.shape), indexing="ij")) + forward
    returned = np.stack([warp(part, place, mode="edge", preserve_range=True) for part in backward])
    gap = ((forward + returned) ** 2).sum(axis=0)
    squared_flow = (forward**2).sum(axis=0) + (returned**2).sum(axis=0)
    inside = ((place >= 0) & (place <= np.array(grey.shape)[:, None, None] - 1)).all(axis=0)
    valid = (gap <= 0.01 * squared_flow + 0.5) & inside
    if missing.any():
        valid &= warp(missing.astype(np.float32), place, mode="edge") == 0
        valid &= ~missing
    back = np.stack([warp(part, place, mode="edge") for part in np.moveaxis(after, -1, 0)], -1)
    return float(((back - now) ** 2).mean(axis=-1)[valid].mean()) if valid.any() else float("nan")
