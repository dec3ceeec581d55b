"""What tracked films show: real clips beside their futures, at several frame rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.blobs import TrackedLaw, Tracker, tracked_law
from sdevid.evaluate.generation import continued
from sdevid.evaluate.progress import batches
from sdevid.models.video_model import VideoModel
from sdevid.types import as_frames

STRIDES = (1, 2, 4)  # every how many-th frame of the clips is taken
LEAST = 8  # frames of a film that is tracked
ROWS = 32


@dataclass(frozen=True)
class FilmComparison:
    """Real films and their futures from the first frame alone, by the same tracker."""

    fps: float
    real: TrackedLaw | None
    futures: TrackedLaw | None

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        sides = {"real": self.real, "futures": self.futures}
        return {"fps": self.fps} | {name: law and law.as_json() for name, law in sides.items()}


def compare(
    model: VideoModel, index: ShardIndex, clips: range, tracker: Tracker, seed: int = 0
) -> list[FilmComparison]:
    """Track the whole clips with these numbers and a future of each, at up to three frame rates.

    The index may be at another rate than the model was trained at. The first frame is seen, so it
    is left out of both sides.
    """
    first = index.clips[clips[0]]
    video = _whole(index, model.config, clips, first.num_frames, first.fps)
    comparisons = []
    for stride in STRIDES:
        taken = video[:, ::stride]
        if taken.shape[1] < LEAST:
            continue
        fps = first.fps / stride
        ahead, title = taken.shape[1] - 1, f"futures at {fps:g} fps"
        generated = _grey(continued(model, taken[:, :1], ahead, fps, seed, title))
        real = _grey(taken[:, 1:])
        comparisons.append(
            FilmComparison(
                fps, tracked_law(real, fps, tracker), tracked_law(generated, fps, tracker)
            )
        )
    return comparisons


def _whole(index: ShardIndex, config: Config, clips: range, frames: int, fps: float) -> Any:
    whole = config.model_copy(update={"sequence_length": frames, "fps": fps, "frame_strides": (1,)})
    parts = batches(clips, ROWS, "real films")
    return np.concatenate([stream.fixed(index, whole, part).video.numpy() for part in parts])


def _grey(films: Any) -> Any:
    return as_frames(torch.from_numpy(films)).mean(2).numpy()
