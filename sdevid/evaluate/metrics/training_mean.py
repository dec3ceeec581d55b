"""What the training split says in one frame and one position: the mean-frame baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.sde_recovery.scene_tracker import SceneTracker
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import in_unit_range

CLIPS = 512  # of the training split, at most


@dataclass(frozen=True)
class Mean:
    """Means over the frames of the training split."""

    frame: Floats  # height, width, channels; in [0, 1], NaN where nothing was ever observed
    position: Floats | None  # (x, y), or the radius, in units, for drawn video


def training_mean(index: ShardIndex, config: Config, tracker: SceneTracker | None) -> Mean:
    """Average up to 512 clips of `index`, at even distances; positions too, given a tracker."""
    positions = []
    shape = (*config.frame_shape, config.channels)
    total, count = np.zeros(shape), np.zeros(shape)
    for part in batches(evenly(CLIPS, len(index)), 32, "mean of training clips"):
        batch = stream.fixed(index, config, part)
        video = in_unit_range(batch.values)
        known = np.isfinite(video)
        total += np.where(known, video, 0).sum(axis=(0, 1), dtype=np.float64)
        count += known.sum(axis=(0, 1))
        if tracker is not None:
            place = tracker.place(batch.pixels)
            positions.append(place.reshape(-1, place.shape[-1]))
    position = np.nanmean(np.concatenate(positions), axis=0) if positions else None
    return Mean(np.where(count > 0, total / np.maximum(count, 1), np.nan), position)
