"""Whole sets of videos, generated beside real, and features of them.

The floor of a distance is that of the held-out clips from as many clips of the training split: no
generator can be expected to be below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext, SetContext, read_clips
from sdevid.evaluate.generation import futures
from sdevid.evaluate.metric import Row
from sdevid.evaluate.metrics.networks import FeatureNetwork, features
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values, in_unit_range, masked_like
from sdevid.evaluate.table import short

MOST = 2048  # videos of a set, unless asked otherwise
_HOW = {
    "none": "generated freely",
    "in": "predicted, observed frames in",
    "out": "predicted, observed frames left out",
}


@dataclass(frozen=True)
class VideoSets:
    """Equally many generated, real and training videos, cut alike.

    What a real video lacks is black in the generated and the training video of the same number.
    """

    generated: Values
    real: Values
    training: Values
    context: SetContext

    def protocol(self) -> dict[str, Any]:
        """Describe the sets for the reader of a distance: videos, frames, context."""
        return {
            "videos": len(self.generated),
            "frames": self.generated.shape[1],
            "context": self.context,
        }

    def features(
        self, context: EvalContext, network: FeatureNetwork, title: str
    ) -> tuple[Floats, Floats, Floats]:
        """Compute features (videos, size) of the generated, the real and the training set."""
        generated, real, training = (
            features(network, videos, f"{title}, {name}", context.device)
            for name, videos in vars(self).items()
            if name != "context"
        )
        return generated, real, training


@lru_cache(maxsize=1)
def collect_sets(context: EvalContext) -> VideoSets:
    """Gather sets of `set_size` videos, or as many as both splits hold, 2,048 at most."""
    options, config = context.options, context.config
    number = min(options.set_size or MOST, len(context.index), len(context.training))
    clips, trained = evenly(number, len(context.index)), evenly(number, len(context.training))
    real = context.real(clips, "held-out clips")
    training = read_clips(context.training, config, trained, "training clips")
    if options.set_context == "none":
        frames, fps = config.sequence_length, config.fps
        generated = context.generate(range(number), frames, fps, "a set of videos")
        return _masked_alike(generated, real, training, "none")
    observed = options.context
    ahead = np.concatenate(
        [
            futures(context.model, batch, observed, 1, context.seed).samples[:, 0]
            for part in batches(clips, 32, "a set of predictions")
            if (batch := stream.fixed(context.index, config, part))
        ]
    )
    if options.set_context == "out":
        return _masked_alike(ahead, real[:, observed:], training[:, observed:], "out")
    given = real[:, :observed]
    given = given if given.dtype == ahead.dtype else in_unit_range(given)
    ahead = ahead if given.dtype == ahead.dtype else in_unit_range(ahead)
    return _masked_alike(np.concatenate([given, ahead], axis=1), real, training, "in")


def _masked_alike(
    generated: Values, real: Values, training: Values, context: SetContext
) -> VideoSets:
    """Lay the masks of real videos over all three sets, since networks take no NaN."""
    real_alone, training = masked_like(real, real), masked_like(training, real)
    return VideoSets(masked_like(generated, real), real_alone, training, context)


def distance_row(name: str, entry: dict[str, Any], of: dict[str, Any], which: str = "") -> Row:
    """Build the row of a distance `entry` between sets with protocol `of`."""
    how = _HOW[of["context"]]
    section = f"{name}: {of['videos']} videos of {of['frames']} frames, {how}"
    floor = f"real against real {short(entry['floor'])}"
    return Row(section, f"generated from real{which}", entry["distance"], floor)
