# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Normals and uniform draws from counters, inside other kernels and by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.philox.reference import LANES, Draw

BLOCK = 1024  # counters of a program
ALIGN = 32  # numbers: 128 bytes


@triton.jit
def log(x):
    """Compute the logarithm of a positive normal number, within 2e-7 of it.

    A minimax polynomial of log(1 + f) / f where 1 + f lies within sqrt(1/2) and sqrt(2).
    """
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) & -8388608  # of sqrt(1/2); times 2^23
    f = (bits - exponent).to(tl.float32, bitcast=True) - 1.0
    p = (8.7223491745e-2 * f - 1.4366839946e-1) * f + 1.4952267614e-1
    p = ((p * f - 1.6562393577e-1) * f + 1.9956833509e-1) * f - 2.5002074046e-1
    p = ((p * f + 3.3334185627e-1) * f - 4.9999987964e-1) * f + 9.9999997419e-1
    return exponent.to(tl.float32) * 8.262958294867817e-08 + f * p  # log(2) / 2^23


@triton.jit
def rotate(radius, word):
    """Compute radius times cosine and sine of 2 pi word / 2^32, within 2e-7 of the radius.

    Half a turn is a change of sign; minimax polynomials take the rest, which lies within a quarter
    turn. The library's sine and cosine take any angle, at five times the instructions.
    """
    double = word << 1
    half_turn = ((word ^ double) & 0x80000000).to(tl.int32, bitcast=True)
    signed_radius = (radius.to(tl.int32, bitcast=True) ^ half_turn).to(tl.float32, bitcast=True)
    x = double.to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10  # 2^-31
    y = x * x
    sine = (1.5082056441e-4 * y - 4.6722279229e-3) * y + 7.9688480540e-2
    sine = (sine * y - 6.4596335987e-1) * y + 1.5707962900
    cosine = (8.5819061849e-4 * y - 2.0810627517e-2) * y + 2.5365074463e-1
    cosine = (cosine * y - 1.2336982147) * y + 9.9999995347e-1
    return signed_radius * cosine, signed_radius * x * sine


@triton.jit
def box_muller(for_radius, for_angle, variance):
    """Transform two blocks of words to two of centred normals (Box and Muller 1958)."""
    unit = (for_radius >> 1).to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10
    unit = unit + 2.3283064365386963e-10
    return rotate(tl.sqrt(log(unit) * (-2.0 * variance)), for_angle)


@triton.jit
def words(seed, serial, index, tag):
    """Compute four blocks of words for 64-bit counters `index` of one clip or one each.

    Those of `tl.philox`, by products of 64 bits: one instruction where it takes two.
    """
    c0 = (index & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((index >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = c0 * 0
    c2 = (((serial >> 32) & 0xFFFF) << 16 | tag).to(tl.uint32) + zero
    c3 = (serial & 0xFFFFFFFF).to(tl.uint32) + zero
    key = seed.to(tl.uint64)
    k0, k1 = (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        odd, even = c2.to(tl.uint64) * 0xCD9E8D57, c0.to(tl.uint64) * 0xD2511F53
        c0, c2 = (odd >> 32).to(tl.uint32) ^ c1 ^ k0, (even >> 32).to(tl.uint32) ^ c3 ^ k1
        c1, c3 = odd.to(tl.uint32), even.to(tl.uint32)
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def lanes(seed, serial, index, tag, variance):
    """Draw four blocks of normals for a block of counters."""
    w0, w1, w2, w3 = words(seed, serial, index, tag)
    n0, n1 = box_muller(w0, w1, variance)
    n2, n3 = box_muller(w2, w3, variance)
    return n0, n1, n2, n3


@triton.jit
def unit(word):
    """Convert the upper 24 bits of a word to [0, 1)."""
    return (word >> 8).to(tl.int32, bitcast=True).to(tl.float32) * 5.960464477539063e-08


@triton.jit
def block(seed, serial, cell, groups, first_group, variance, GROUPS: tl.constexpr):
    """Draw normals of components 4 * first_group and on, in order: a block of 4 * GROUPS."""
    index = cell * groups + first_group + tl.arange(0, GROUPS)
    n0, n1, n2, n3 = lanes(seed, serial, index, 0, variance)
    return tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))


@triton.jit(do_not_specialize=["seed", "tag"])
def fill(
    out_ptr,
    serial_ptr,
    cell_ptr,
    seed,
    tag,
    steps,
    size,
    groups,
    counters,
    NORMAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Fill out (clips, steps, size), four components a counter."""
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_counter = counter < counters
    row, group = counter // groups, counter % groups
    b_serial = tl.load(serial_ptr + row // steps, mask=is_counter, other=0)
    index = tl.load(cell_ptr + row, mask=is_counter, other=0) * groups + group
    if NORMAL:
        n0, n1, n2, n3 = lanes(seed, b_serial, index, tag, 1.0)
    else:
        w0, w1, w2, w3 = words(seed, b_serial, index, tag)
        n0, n1, n2, n3 = unit(w0), unit(w1), unit(w2), unit(w3)
    _store(out_ptr, n0, n1, n2, n3, row, group, size, is_counter)


@triton.jit
def _store(out_ptr, n0, n1, n2, n3, row, group, size, is_counter):
    """Store four blocks of a counter's components, which lie beside each other in out (., size)."""
    group_ptr = out_ptr + row * size + group * 4
    left = size - group * 4
    tl.store(group_ptr, n0, mask=is_counter)
    tl.store(group_ptr + 1, n1, mask=is_counter & (left > 1))
    tl.store(group_ptr + 2, n2, mask=is_counter & (left > 2))
    tl.store(group_ptr + 3, n3, mask=is_counter & (left > 3))


@triton.jit(do_not_specialize=["seed"])
def fill_together(
    out_ptr,
    serial_ptr,
    seed,
    clips,
    first_program,
    offset,
    size,
    tag,
    is_normal,
    DRAWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Fill each draw's (clips, size) from `offset` of out on; a program works for one draw.

    `first_program` and what follows are tuples, of the draws in the order of their programs.
    """
    program = tl.program_id(0)
    begin, place, components = first_program[0], offset[0], size[0]
    which, normal = tag[0], is_normal[0]
    for draw in tl.static_range(1, DRAWS):
        begun = program >= first_program[draw]
        begin = tl.where(begun, first_program[draw], begin)
        place = tl.where(begun, offset[draw], place)
        components = tl.where(begun, size[draw], components)
        which = tl.where(begun, tag[draw], which)
        normal = tl.where(begun, is_normal[draw], normal)
    groups = (components + 3) // 4
    counter = (program - begin).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_counter = counter < clips * groups
    row, group = counter // groups, counter % groups
    b_serial = tl.load(serial_ptr + row, mask=is_counter, other=0)
    w0, w1, w2, w3 = words(seed, b_serial, group, which)
    n0, n1 = box_muller(w0, w1, 1.0)
    n2, n3 = box_muller(w2, w3, 1.0)
    is_uniform = normal == 0
    n0, n1 = tl.where(is_uniform, unit(w0), n0), tl.where(is_uniform, unit(w1), n1)
    n2, n3 = tl.where(is_uniform, unit(w2), n2), tl.where(is_uniform, unit(w3), n3)
    _store(out_ptr + place, n0, n1, n2, n3, row, group, components, is_counter)


@torch.library.custom_op("sdevid::philox_together", mutates_args=())
def philox_together(
    serial: Tensor, seed: int, sizes: list[int], tags: list[int], is_normal: list[bool]
) -> Tensor:
    """Draws at cell 0 in one vector, (batch, size) from each of `_offsets` on, in one launch."""
    clips = len(serial)
    offsets, end = _offsets(clips, sizes)
    out = torch.empty(end, device=serial.device, dtype=torch.float32)
    programs = [triton.cdiv(clips * triton.cdiv(size, LANES), BLOCK) for size in sizes]
    *first, count = accumulate(programs, initial=0)
    if count:
        fill_together[(count,)](
            out_ptr=out,
            serial_ptr=serial,
            seed=seed,
            clips=clips,
            first_program=tuple(first),
            offset=tuple(offsets),
            size=tuple(sizes),
            tag=tuple(tags),
            is_normal=tuple(int(x) for x in is_normal),
            DRAWS=len(sizes),
            BLOCK=BLOCK,
        )
    return out


@philox_together.register_fake
def _(serial, seed, sizes, tags, is_normal):  # noqa: ARG001
    end = _offsets(len(serial), sizes)[1]
    return torch.empty(end, device=serial.device, dtype=torch.float32)


def _offsets(clips: int, sizes: Sequence[int]) -> tuple[list[int], int]:
    """Lay draws of (clips, size) one after the other, each aligned; also return where they end."""
    *offsets, end = accumulate((-(-clips * size // ALIGN) * ALIGN for size in sizes), initial=0)
    return offsets, end


def together(seed: int, serial: Tensor, draws: Sequence[Draw]) -> list[Tensor]:
    """Make several draws at cell 0 as the reference does, each (batch, size), in one launch."""
    sizes, tags, is_normal = ([draw[k] for draw in draws] for k in range(3))
    flat = philox_together(serial, signed(seed), sizes, tags, is_normal)
    clips = len(serial)
    begins = _offsets(clips, sizes)[0]
    return [
        flat[begin : begin + clips * size].view(clips, size)
        for begin, size in zip(begins, sizes, strict=True)
    ]


@torch.library.custom_op("sdevid::philox_fill", mutates_args=())
def philox_fill(
    serial: Tensor, cell: Tensor, seed: int, size: int, tag: int, normal: bool
) -> Tensor:
    """Draws (batch, steps, size) at `cell` (batch, steps), in one launch."""
    groups = triton.cdiv(size, LANES)
    out = torch.empty(*cell.shape, size, device=cell.device, dtype=torch.float32)
    counters, steps = cell.numel() * groups, cell.shape[1]
    if counters:
        fill[(triton.cdiv(counters, BLOCK),)](
            out_ptr=out,
            serial_ptr=serial,
            cell_ptr=cell.contiguous(),
            seed=seed,
            tag=tag,
            steps=steps,
            size=size,
            groups=groups,
            counters=counters,
            NORMAL=normal,
            BLOCK=BLOCK,
        )
    return out


@philox_fill.register_fake
def _(serial, cell, seed, size, tag, normal):  # noqa: ARG001
    return torch.empty(*cell.shape, size, device=cell.device, dtype=torch.float32)


def normals(seed: int, serial: Tensor, cell: Tensor, size: int, tag: int = 0) -> Tensor:
    """Draw as the reference does, in one launch."""
    drawn: Tensor = philox_fill(serial, cell, signed(seed), size, tag, True)
    return drawn


def uniforms(seed: int, serial: Tensor, cell: Tensor, size: int, tag: int = 0) -> Tensor:
    """Draw as the reference does, in one launch."""
    drawn: Tensor = philox_fill(serial, cell, signed(seed), size, tag, False)
    return drawn


def signed(seed: int) -> int:
    """Reinterpret the seed's 64 bits as a signed integer, which is how a launch passes them."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (seed >> 63 << 64)
