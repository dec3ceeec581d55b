"""Whole sets of videos, generated beside real: their distance, and that of real from real.

The floor is the distance of the held-out clips from as many clips of the training split: no
generator can be expected to be below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.bootstrap import ratio_of_means
from sdevid.evaluate.distribution import kernel_distance, resampled_frechet_distance
from sdevid.evaluate.measured import Floats, mean_over
from sdevid.evaluate.networks import SEEDS, Judge, features, random_features
from sdevid.evaluate.prediction import futures
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.subject import Subject
from sdevid.evaluate.warping import warping_error
from sdevid.sample.write import Pixels

MOST = 2048  # videos of a set, unless asked otherwise
WARPED = 32  # videos of each kind whose flow is found
Context = Literal["none", "in", "out"]


@dataclass(frozen=True)
class Sets:
    """As many videos of each kind, cut alike."""

    generated: Pixels
    real: Pixels
    training: Pixels
    context: Context  # none: generated freely; in, out: predicted, observed frames in or left out

    def protocol(self) -> dict[str, Any]:
        """What a distance between them must be read with."""
        return {
            "videos": len(self.generated),
            "frames": self.generated.shape[1],
            "context": self.context,
        }


def gather(subject: Subject, size: int | None, context: Context, observed: int) -> Sets:
    """Sets of `size` videos, or as many as both splits hold, 2,048 at most."""
    most = min(len(subject.index), len(subject.training))
    number = min(size or MOST, most)
    clips, trained = evenly(number, len(subject.index)), evenly(number, len(subject.training))
    real = subject.real(clips, "held-out clips")
    training = np.concatenate(
        [
            stream.fixed(subject.training, subject.config, part).video.numpy()
            for part in batches(trained, 64, "training clips")
        ]
    )
    if context == "none":
        frames, fps = subject.config.sequence_length, subject.config.fps
        made = subject.generate(range(number), frames, fps, "a set of videos")
        return Sets(made, real, training, context)
    ahead = np.concatenate(
        [
            futures(subject.model, batch, observed, 1, subject.seed)[0][:, 0]
            for part in batches(clips, 32, "a set of predictions")
            if (batch := stream.fixed(subject.index, subject.config, part))
        ]
    )
    if context == "out":
        return Sets(ahead, real[:, observed:], training[:, observed:], context)
    whole = np.concatenate([real[:, :observed], ahead], axis=1)
    return Sets(whole, real, training, context)


def random_kernel_distance(sets: Sets, subject: Subject) -> dict[str, Any]:
    """KID on features of random networks, one of each seed, and each one's floor."""
    found = []
    for seed in SEEDS:
        judge = random_features(seed, subject.config.channels)
        made, real, trained = _features(sets, judge, subject, f"random features {seed}")
        scale = real.std(axis=0) + 1e-6
        made, real, trained = ((part - real.mean(axis=0)) / scale for part in (made, real, trained))
        distance, floor = kernel_distance(made, real), kernel_distance(trained, real)
        told = {"distance": distance.as_json(), "floor": floor.as_json()}
        found.append({"feature_seed": seed, **told})
    return sets.protocol() | {"seeds": found}


def frechet_video_distance(sets: Sets, subject: Subject, judge: Judge) -> dict[str, Any]:
    """FVD by the network that the user gave, and its floor."""
    made, real, trained = _features(sets, judge, subject, "I3D features")
    return sets.protocol() | {
        "distance": resampled_frechet_distance(made, real).as_json(),
        "floor": resampled_frechet_distance(trained, real).as_json(),
        "features": made.shape[1],
    }


def warping(subject: Subject) -> dict[str, Any]:
    """Temporal warping errors of generated and of real video, and their ratio."""
    number = min(WARPED, len(subject.index))
    frames, fps = subject.config.sequence_length, subject.config.fps
    made = subject.generate(range(number), frames, fps, "videos to warp")
    real = subject.real(evenly(number, len(subject.index)), "clips to warp")
    errors = [
        warping_error(part, f"flow of {name}")
        for part, name in ((made, "generated"), (real, "real"))
    ]
    return {
        "videos": number,
        "generated": mean_over(errors[0]).as_json(),
        "real": mean_over(errors[1]).as_json(),
        "ratio": ratio_of_means(errors[0], errors[1]).as_json(),
    }


def _features(sets: Sets, judge: Judge, subject: Subject, title: str) -> tuple[Floats, ...]:
    kinds = (("generated", sets.generated), ("real", sets.real), ("training", sets.training))
    return tuple(
        features(judge, videos, f"{title}, {name}", subject.device) for name, videos in kinds
    )
