"""The worst place of a curve beside its truth: what a headline has to show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WIDE = 1.96  # standard errors on each side of a 95 % interval
TOLERATED = 0.2  # of the truth


@dataclass(frozen=True)
class Deviation:
    """How far a curve is off at its worst bin, as a share of the truth's scale."""

    position: float
    share: float  # (generated - truth) / scale
    error: float  # standard error of `share`

    @property
    def certain(self) -> float:
        """The part of |share| that its 95 % interval leaves, at least 0."""
        return max(0.0, abs(self.share) - WIDE * self.error)

    @property
    def is_wrong(self) -> bool:
        """Whether the deviation surely exceeds what is tolerated."""
        return self.certain > TOLERATED


def worst_bin(grid: dict[str, Any], key: str, *, relative: bool) -> Deviation | None:
    """Find the bin of `generated` that is surely furthest from `truth`; None where none compares.

    `relative`: measured by the truth of the same bin (a curve that is positive), else by the
    largest |truth| of all (a curve that crosses zero).
    """
    generated, truth = grid["generated"], grid["truth"]
    known = {
        round(x, 9): y
        for x, y in zip(truth["position"], truth[key], strict=True)
        if y is not None and math.isfinite(y)
    }
    largest = max(map(abs, known.values()), default=0.0)
    candidates = []
    for x, y, error in zip(
        generated["position"], generated[key], generated[f"{key}_error"], strict=True
    ):
        right = known.get(round(x, 9))
        scale = largest if right is None or not relative else abs(right)
        if right is None or y is None or error is None or not scale:
            continue
        candidates.append(Deviation(x, (y - right) / scale, error / scale))
    return max(candidates, key=lambda one: (one.certain, abs(one.share)), default=None)
