"""A forecast beside others of the same clips at each frame ahead, by bootstrap over videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import Estimate, Floats


def lead_by_frame(
    own: Floats,
    others: Sequence[Floats],
    sources: Sequence[str],
    score: Callable[[Floats], Floats],
) -> list[Estimate]:
    """Estimate how far `own` is ahead of the best of `others` at each frame; below 0 it is behind.

    Values are (clips, frames) of the same clips, of which `sources` names the videos; NaN is left
    out. `score` turns a mean over clips into a figure of which more is better. Error and interval
    of each frame are by bootstrap over the videos.
    """
    names = {name: row for row, name in enumerate(sorted(set(sources)))}
    rows = np.array([names[name] for name in sources])
    sums = [_by_source(values, rows, len(names)) for values in (own, *others)]

    def lead(frame: int, weight: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, *rest = [score((weight @ a[:, frame]) / (weight @ n[:, frame])) for a, n in sums]
        ahead: Floats = mean - np.max(rest, axis=0)
        return ahead

    frames = range(own.shape[1])
    return [bootstrap(len(names), partial(lead, frame)) for frame in frames]


def _by_source(values: Floats, rows: np.ndarray, count: int) -> tuple[Floats, Floats]:
    """Sum and number of the finite values of each video, (videos, frames)."""
    known = np.isfinite(values)
    total, number = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(total, rows, np.where(known, values, 0.0))
    np.add.at(number, rows, known)
    return total, number
