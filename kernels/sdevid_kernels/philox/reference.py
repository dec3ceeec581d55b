"""Philox4x32-10 and Box-Muller in torch's int64 arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

LANES = 4  # normals a counter
_MASK = 0xFFFFFFFF


class Draw(NamedTuple):
    """What is drawn of each clip at cell 0: normals, or uniforms in [0, 1)."""

    size: int  # components
    tag: int
    is_normal: bool


def words(seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> list[Tensor]:
    """Compute four lanes of 32-bit words (as int64) for counters (as int64) and a 64-bit seed.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the words of `tl.philox`.
    """
    for i in range(10):
        k0 = seed + i * 0x9E3779B9 & _MASK
        k1 = (seed >> 32) + i * 0xBB67AE85 & _MASK
        odd, even = c2 * 0xCD9E8D57, c0 * 0xD2511F53
        c0, c1, c2, c3 = (
            (odd >> 32 ^ c1 ^ k0) & _MASK,
            odd & _MASK,
            (even >> 32 ^ c3 ^ k1) & _MASK,
            even & _MASK,
        )
    return [c0, c1, c2, c3]


def normals(
    seed: int,
    serial: Int64[Tensor, " batch"],
    cell: Int64[Tensor, "batch steps"],
    size: int,
    tag: int = 0,
) -> Float[Tensor, "batch steps size"]:
    """Draw standard normals of `size` components for each clip and cell, float32.

    `tag` is c2's low 16 bits: stream | level << 8. Component i is lane i % 4 of the counter
    cell * groups + i // 4.
    """
    lanes = _lanes(seed, serial, cell, size, tag)
    pairs = [_box_muller(*lanes[:2]), _box_muller(*lanes[2:])]
    flat = torch.stack([*pairs[0], *pairs[1]], -1).flatten(2)
    return flat[..., :size]


def uniforms(
    seed: int,
    serial: Int64[Tensor, " batch"],
    cell: Int64[Tensor, "batch steps"],
    size: int,
    tag: int = 0,
) -> Float[Tensor, "batch steps size"]:
    """Draw uniform multiples of 2**-24 in [0, 1) at the cells of `normals`, float32."""
    lanes = _lanes(seed, serial, cell, size, tag)
    flat = torch.stack([(lane >> 8).float() * 2**-24 for lane in lanes], -1).flatten(2)
    return flat[..., :size]


def _lanes(seed: int, serial: Tensor, cell: Tensor, size: int, tag: int) -> list[Tensor]:
    """Compute the words (batch, steps, groups) of each lane."""
    groups = -(-size // LANES)
    index = cell[..., None] * groups + torch.arange(groups, device=cell.device)
    clip = serial[:, None, None].expand_as(index)
    c2 = (clip >> 32 & 0xFFFF) << 16 | tag
    return words(seed, index & _MASK, index >> 32 & _MASK, c2, clip & _MASK)


def _box_muller(for_radius: Tensor, for_angle: Tensor) -> tuple[Tensor, Tensor]:
    unit = (for_radius >> 1).float() * 2**-31 + 2**-32  # in (0, 1]
    radius = (-2 * unit.log()).sqrt()
    signed = for_angle - (for_angle >> 31 << 32)
    angle = signed.float() * (2 * math.pi * 2**-32)
    return radius * angle.cos(), radius * angle.sin()
