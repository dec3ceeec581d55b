"""Sequences of several lengths end to end, without their gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int32, Int64, Shaped
from torch import Tensor
from torch.nn import functional


class Packing(NamedTuple):
    """Which places of a batch of sequences lie in a pack, row after row."""

    seen: Bool[Tensor, "batch length"]  # the places that do, at least one a row
    places: Int64[Tensor, " packed"]  # of each in the flattened batch, rising
    starts: Int32[Tensor, " batch+1"]  # of each row in the pack, and the end
    lengths: tuple[int, ...]  # of the rows, on the host

    @classmethod
    def of(
        cls, seen: Bool[Tensor, "batch length"], lengths: Sequence[int] | None = None
    ) -> Packing:
        """Lay out the places `seen`, `lengths` a row; without those a GPU is waited for."""
        counts = seen.sum(1)
        lengths = tuple(counts.tolist()) if lengths is None else tuple(lengths)
        order = seen.flatten().logical_not().to(torch.uint8).argsort(stable=True)
        starts = functional.pad(counts.cumsum(0), (1, 0)).int()
        return cls(seen, order[: sum(lengths)], starts, lengths)

    def pack(self, rows: Shaped[Tensor, "batch length *any"]) -> Shaped[Tensor, "packed *any"]:
        """Take the places that are in the pack."""
        return rows.flatten(0, 1)[self.places]

    def unpack(self, packed: Shaped[Tensor, "packed *any"]) -> Shaped[Tensor, "batch length *any"]:
        """Put each back in its place, with 0 in the gaps."""
        batch, length = self.seen.shape
        rows = packed.new_zeros(batch * length, *packed.shape[1:])
        filled = rows.index_copy(0, self.places, packed)
        return filled.view(batch, length, *packed.shape[1:])
