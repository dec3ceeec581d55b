"""The motion at other frame rates than that of training: 1/2, 2 and 4 times it.

The generated videos last as long at each rate and, the Brownian path being the same, are the same
videos. What is real at a rate is drawn anew from the known SDE, as long as a training clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches
from sdevid.evaluate.sde_recovery import motion
from sdevid.evaluate.sde_recovery.motion_metric import needs_known_sde, statistics_rows
from sdevid.evaluate.statistics.estimate import Floats

FACTORS = (0.5, 2.0, 4.0)
_DRAWN = 256  # real clips drawn at each rate
_PATHS = 1024  # of the simulated truth


def at_other_rates(context: EvalContext, rollouts: int, frames: int) -> dict[str, Any]:
    """Run `motion.compare` at each multiple of the training rate, by multiple, then by axis.

    `frames` is the length of a generated video at the training rate; its length in seconds is kept.
    """
    tracker = context.tracker
    assert tracker is not None
    by_factor: dict[str, Any] = {}
    for factor in FACTORS:
        fps = factor * context.config.fps
        count = _count(frames, factor)
        videos = context.generate(range(rollouts), count, fps, f"free videos, {fps:g} fps")
        generated = tracker.paths(videos)
        real = _drawn(context, factor)
        by_factor[f"{factor:g}"] = {
            name: motion.compare(
                generated[name], real[name], 1 / fps, sde, context.seed, count, _PATHS
            )
            | {"fps": fps}
            for name, sde in tracker.axes.items()
        }
    return by_factor


def _count(frames: int, factor: float) -> int:
    return max(4, round((frames - 1) * factor) + 1)


def _drawn(context: EvalContext, factor: float) -> dict[str, Floats]:
    tracker, config = context.tracker, context.config
    assert tracker is not None
    times = np.arange(_count(config.sequence_length, factor)) / (factor * config.fps)
    rng = np.random.default_rng([context.seed, round(1000 * factor)])
    states = tracker.scene.simulate(rng, _DRAWN, times)
    parts = [
        tracker.paths(tracker.scene.draw(states[part.start : part.stop], config.frame_size))
        for part in batches(range(_DRAWN), 32, f"drawing at {1 / times[1]:g} fps")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in tracker.axes}


def run(context: EvalContext) -> Results:
    """Compare motion at other rates."""
    options = context.options
    return {"rates": at_other_rates(context, options.rollouts, options.rollout_frames)}


def rows(results: Results) -> Iterator[Row]:
    """Yield the statistics of motion, rate after rate."""
    for factor, axes in results.get("rates", {}).items():
        for axis, entry in axes.items():
            section = f"The same at {factor} times the training rate, {entry['fps']:g} fps: {axis}"
            yield from statistics_rows(section, entry)


METRIC = Metric(
    name="rates",
    summary="`motion` at 1/2, 2 and 4 times the training rate (known SDE)",
    run=run,
    rows=rows,
    needs=needs_known_sde,
)
