"""The same seed at 2 and 4 times the training rate: whether it passes through the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.statistics.bootstrap import ratio_of_means
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values

FACTORS = (2, 4)
VIDEOS = 32  # generated at each rate


def at_finer_rates(context: EvalContext) -> dict[str, Any]:
    """Measure, by factor, the distance of the frames shared with the training rate.

    Mean squares of pixels, over those between two seeds, for the frames of a training clip but the
    first, which does not depend on the rate. 0 where the videos are the same; 1 where they share no
    more than two seeds do. What is left comes from the solver: a finer grid takes more steps along
    the same Brownian path.
    """
    config = context.config
    frames, rates = config.sequence_length, {}
    base = _free(context, frames, 1)
    for factor in FACTORS:
        shared = _free(context, (frames - 1) * factor + 1, factor)[:, ::factor]
        apart = ratio_of_means(_apart(base, shared), _apart(base, np.roll(base, 1, axis=0)))
        rates[f"{factor}"] = {"fps": factor * config.fps, "distance": apart.as_json()}
    return {"videos": VIDEOS, "frames": frames, "rates": rates}


def _free(context: EvalContext, frames: int, factor: int) -> Values:
    fps = factor * context.config.fps
    return context.generate(range(VIDEOS), frames, fps, f"same seeds, {fps:g} fps")


def _apart(one: Values, other: Values) -> Floats:
    """Compute each video's mean squared difference past its first frame."""
    difference = one[:, 1:].astype(np.float64) - other[:, 1:]
    apart: Floats = np.square(difference).mean(axis=(1, 2, 3, 4))
    return apart


def run(context: EvalContext) -> Results:
    """Measure the distances at finer rates."""
    return {"refinement": at_finer_rates(context)}


def rows(results: Results) -> Iterator[Row]:
    """Yield one distance a rate."""
    entries = results.get("refinement", {"rates": {}})
    for factor, entry in entries["rates"].items():
        section = f"The same seed at a finer rate, {entries['videos']} free videos"
        name = f"distance at {factor} times the rate, {entry['fps']:g} fps"
        yield Row(section, name, entry["distance"], "0 the same video, 1 another seed's")


METRIC = Metric(
    name="refinement",
    summary=(
        "32 free videos at 2 and 4 times the rate beside the same seeds' at the training rate, "
        "over the distance of two seeds"
    ),
    run=run,
    rows=rows,
)
