"""The motion at other frame rates than that of training: 1/2, 2 and 4 times it.

The generated videos last as long at each rate and, the Brownian path being the same, are the same
videos. What is real at a rate is drawn anew from the known SDE, as long as a training clip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdevid.evaluate import motion
from sdevid.evaluate.measured import Floats
from sdevid.evaluate.progress import batches
from sdevid.evaluate.subject import Subject

FACTORS = (0.5, 2.0, 4.0)
_DRAWN = 256  # real clips drawn at each rate
_PATHS = 1024  # of the simulated truth


def at_other_rates(subject: Subject, rollouts: int, frames: int) -> dict[str, Any]:
    """`motion.compare` at each multiple of the training rate, by that multiple, then by axis.

    `frames`: of a generated video at the training rate; its length in seconds is kept.
    """
    observer = subject.observer
    assert observer is not None
    found: dict[str, Any] = {}
    for factor in FACTORS:
        fps = factor * subject.config.fps
        count = _count(frames, factor)
        videos = subject.generate(range(rollouts), count, fps, f"free videos, {fps:g} fps")
        generated = observer.paths(videos)
        real = _drawn(subject, factor)
        found[f"{factor:g}"] = {
            name: motion.compare(
                generated[name], real[name], 1 / fps, sde, subject.seed, count, _PATHS
            )
            | {"fps": fps}
            for name, sde in observer.axes.items()
        }
    return found


def _count(frames: int, factor: float) -> int:
    return max(4, round((frames - 1) * factor) + 1)


def _drawn(subject: Subject, factor: float) -> dict[str, Floats]:
    observer, config = subject.observer, subject.config
    assert observer is not None
    times = np.arange(_count(config.sequence_length, factor)) / (factor * config.fps)
    rng = np.random.default_rng([subject.seed, round(1000 * factor)])
    states = observer.scene.simulate(rng, _DRAWN, times)
    parts = [
        observer.paths(observer.scene.draw(states[part.start : part.stop], config.frame_size))
        for part in batches(range(_DRAWN), 32, f"drawing at {1 / times[1]:g} fps")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in observer.axes}
