"""How times lie on the cells of a Brownian path: what decides the shapes of its draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from sdevid.errors import UserError


class Rhythm(NamedTuple):
    """Bounds over a batch of clips. Part of the times have no more of each than the whole."""

    span: int  # cells from a clip's first time to its last
    longest: int  # cells that one step touches
    halvings: int  # of a cell until the bridge meets every time; 0: times lie on the cells' ends

    @property
    def is_whole(self) -> bool:
        """Whether every step spans one whole cell or no time."""
        return self.longest <= 1 and not self.halvings


def rhythm_of(ticks: Int64[Tensor, "batch points"], cell: int) -> Rhythm:
    """Read the rhythm of times; waits for the device where they lie on one.

    Raises UserError where ticks are negative or fall.
    """
    points = ticks.cpu().numpy()
    spans = np.diff(points)
    if (spans < 0).any() or (points[:, :1] < 0).any():
        raise UserError(
            f"ticks run from {points.min()} with a smallest step of {spans.min(initial=0)}, "
            "but a path needs times that start at 0 or later and never fall"
        )
    cells, inside = np.divmod(points, cell)
    longest = -(-int(spans.max(initial=0)) // cell)
    span = int((cells[:, -1:] - cells[:, :1]).max(initial=0))
    return Rhythm(span, longest, _halvings(inside, cell))


def _halvings(inside: np.ndarray[tuple[int, ...], np.dtype[np.int64]], cell: int) -> int:
    """Count halvings of [0, cell) at (a + b) // 2 until each of `inside` was the lower end."""
    low, high, count = np.zeros_like(inside), np.full_like(inside, cell), 0
    while (low != inside).any():
        middle = (low + high) // 2
        low, high = np.where(inside >= middle, middle, low), np.where(inside < middle, middle, high)
        count += 1
    return count
