"""A sum over the bits of tensors that is the same however ranks have cut them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sdevid.checkpoint import Slice

_CHUNK = 1 << 20  # elements at once: 8 MiB a temporary
_MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # odd, 64 bits


def checksum(parts: Iterable[tuple[Tensor, Sequence[Slice]]]) -> int:
    """Sum modulo 2**64 over all elements of a hash of (parameter, place in it, float32 bits).

    Ranks that hold different slices add their sums: the total does not depend on the cut.
    Padding, which is in no slice, does not count.
    """
    total = 0
    for tensor, slices in parts:
        flat = tensor.detach().reshape(-1)
        for s in slices:
            key = int.from_bytes(hashlib.sha256(s.name.encode()).digest()[:8], signed=True)
            for start in range(0, s.count, _CHUNK):
                size = min(_CHUNK, s.count - start)
                part = flat[s.in_shard + start : s.in_shard + start + size]
                total += _chunk(part, s.in_parameter + start, key)
    return total % 2**64


def _chunk(part: Tensor, start: int, key: int) -> int:
    place = torch.arange(start, start + part.numel(), device=part.device)
    mixed = place.mul_(_MIX[0]).add_(key)
    mixed.bitwise_xor_(part.contiguous().view(torch.int32).to(torch.int64))
    for factor in _MIX[1:]:
        mixed.mul_(factor)
        mixed.bitwise_xor_(mixed >> 29)
    return int(mixed.sum())
