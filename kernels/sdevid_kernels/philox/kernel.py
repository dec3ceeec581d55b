# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Normals from counters, inside other kernels and by themselves."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.philox.reference import LANES


@triton.jit
def box_muller(for_radius, for_angle):
    unit = (for_radius >> 1).to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10
    unit = unit + 2.3283064365386963e-10
    radius = tl.sqrt(-2.0 * tl.log(unit))
    angle = for_angle.to(tl.int32, bitcast=True).to(tl.float32) * 1.4629180792671596e-09
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def lanes(seed, serial, index, tag):
    """Four blocks of normals for a block of 64-bit counters `index` of one clip or one each."""
    c0 = (index & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((index >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = c0 * 0
    c2 = (((serial >> 32) & 0xFFFF) << 16 | tag).to(tl.uint32) + zero
    c3 = (serial & 0xFFFFFFFF).to(tl.uint32) + zero
    w0, w1, w2, w3 = tl.philox(seed, c0, c1, c2, c3)
    n0, n1 = box_muller(w0, w1)
    n2, n3 = box_muller(w2, w3)
    return n0, n1, n2, n3


@triton.jit
def block(seed, serial, place, groups, first_group, GROUPS: tl.constexpr):
    """Normals of components 4 * first_group and on, in order: a block of 4 * GROUPS."""
    index = place * groups + first_group + tl.arange(0, GROUPS)
    n0, n1, n2, n3 = lanes(seed, serial, index, 0)
    return tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))


@triton.jit(do_not_specialize=["seed", "tag"])
def _fill(out, serial, place, seed, tag, steps, size, groups, counters, BLOCK: tl.constexpr):
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = counter < counters
    row, group = counter // groups, counter % groups
    clip = tl.load(serial + row // steps, mask=live, other=0)
    index = tl.load(place + row, mask=live, other=0) * groups + group
    n0, n1, n2, n3 = lanes(seed, clip, index, tag)
    at = out + row * size + group * 4
    left = size - group * 4
    tl.store(at, n0, mask=live)
    tl.store(at + 1, n1, mask=live & (left > 1))
    tl.store(at + 2, n2, mask=live & (left > 2))
    tl.store(at + 3, n3, mask=live & (left > 3))


def normals(seed: int, serial: Tensor, place: Tensor, size: int, tag: int = 0) -> Tensor:
    """The reference's draws, in one launch."""
    groups = triton.cdiv(size, LANES)
    out = torch.empty(*place.shape, size, device=place.device, dtype=torch.float32)
    counters, steps = place.numel() * groups, place.shape[1]
    if counters:
        _fill[(triton.cdiv(counters, 1024),)](
            out,
            serial,
            place.contiguous(),
            signed(seed),
            tag,
            steps,
            size,
            groups,
            counters,
            BLOCK=1024,
        )
    return out


def signed(seed: int) -> int:
    """The seed's 64 bits as a signed integer, which is how a launch passes them."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (seed >> 63 << 64)
