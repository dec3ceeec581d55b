"""The same seed at 2 and 4 times the training rate: whether it passes through the same frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdevid.evaluate.bootstrap import ratio_of_means
from sdevid.evaluate.measured import Floats
from sdevid.evaluate.subject import Subject
from sdevid.sample.write import Pixels

FACTORS = (2, 4)
VIDEOS = 32  # generated at each rate


def at_finer_rates(subject: Subject) -> dict[str, Any]:
    """By factor: how far the frames that both rates show are apart, over two seeds' distance.

    Mean squares of pixels, over the frames of a training clip but the first, which does not depend
    on the rate. 0 where the videos are the same; 1 where they share no more than two seeds do. What
    is left comes of the solver: a finer grid takes more steps along the same Brownian path.
    """
    config = subject.config
    frames, found = config.sequence_length, {}
    base = _free(subject, frames, 1)
    for factor in FACTORS:
        shared = _free(subject, (frames - 1) * factor + 1, factor)[:, ::factor]
        apart = ratio_of_means(_apart(base, shared), _apart(base, np.roll(base, 1, axis=0)))
        found[f"{factor}"] = {"fps": factor * config.fps, "distance": apart.as_json()}
    return {"videos": VIDEOS, "frames": frames, "rates": found}


def _free(subject: Subject, frames: int, factor: int) -> Pixels:
    fps = factor * subject.config.fps
    return subject.generate(range(VIDEOS), frames, fps, f"same seeds, {fps:g} fps")


def _apart(one: Pixels, other: Pixels) -> Floats:
    """Mean square of each video's difference past its first frame."""
    difference = one[:, 1:].astype(np.float64) - other[:, 1:]
    apart: Floats = np.square(difference).mean(axis=(1, 2, 3, 4))
    return apart
