"""The solver's times between the frames."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Int64
from torch import Tensor

from sdevid.types import Ticks


def solver_grid(
    ticks: Ticks, cell: int, steps_per_frame: int | None
) -> tuple[Int64[Tensor, "batch points"], list[int]]:
    """Build the solver times through all of `ticks`, and index `ticks` among them.

    Between two of `ticks` lie `steps_per_frame` steps, also where they are equal, so that all ranks
    take as many; or, without it, as many as keep each within `cell`.
    """
    if steps_per_frame is not None:
        part = torch.arange(1, steps_per_frame + 1, device=ticks.device)
        spans = ticks.diff(dim=1)[..., None] * part // steps_per_frame
        between = (ticks[:, :-1, None] + spans).flatten(1)
        saved = list(range(0, between.shape[1] + 1, steps_per_frame))
        return torch.cat([ticks[:, :1], between], dim=1), saved
    points, saved = [ticks[:, :1]], [0]
    for before, after in pairwise(ticks.T):
        count = -(-int((after - before).max()) // cell)
        part = torch.arange(1, count + 1, device=ticks.device)
        points.append(before[:, None] + (after - before)[:, None] * part // max(1, count))
        saved.append(saved[-1] + count)
    return torch.cat(points, dim=1), saved
