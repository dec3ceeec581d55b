# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Normals and uniform draws from counters, inside other kernels and by themselves."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.philox.reference import LANES


@triton.jit
def sincos(word):
    """Compute sine and cosine of 2 pi word / 2^32, the word signed: a quarter turn at most is left.

    Minimax polynomials of Cephes' sinf and cosf on [-pi/4, pi/4], within 1e-7. The library's take
    any angle, which costs five times as many instructions.
    """
    turn = word.to(tl.int32, bitcast=True).to(tl.float32)
    quarter = tl.floor(turn * 9.313225746154785e-10 + 0.5)  # 2^-30
    x = (turn - quarter * 1073741824.0) * 1.4629180792671596e-09  # the difference is exact
    square = x * x
    sine = (-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1
    sine = sine * square * x + x
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square
    cosine = ((cosine + 4.166664568298827e-2) * square - 0.5) * square + 1.0
    count = quarter.to(tl.int32)
    is_odd = (count & 1) == 1
    sign_of_sine, sign_of_cosine = (count & 2) << 30, ((count + 1) & 2) << 30
    one, other = tl.where(is_odd, cosine, sine), tl.where(is_odd, sine, cosine)
    one = (one.to(tl.int32, bitcast=True) ^ sign_of_sine).to(tl.float32, bitcast=True)
    other = (other.to(tl.int32, bitcast=True) ^ sign_of_cosine).to(tl.float32, bitcast=True)
    return one, other


@triton.jit
def log(x):
    """Compute the logarithm of a positive normal number: Cephes' logf, within 1e-7 of it."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # of sqrt(1/2)
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = (7.0376836292e-2 * f - 1.1514610310e-1) * f + 1.1676998740e-1
    p = ((p * f - 1.2420140846e-1) * f + 1.4249322787e-1) * f - 1.6668057665e-1
    p = ((p * f + 2.0000714765e-1) * f - 2.4999993993e-1) * f + 3.3333331174e-1
    return exponent.to(tl.float32) * 0.6931471805599453 + (f + (p * f - 0.5) * f * f)


@triton.jit
def box_muller(for_radius, for_angle):
    """Transform two blocks of words to two blocks of standard normals (Box and Muller 1958)."""
    unit = (for_radius >> 1).to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10
    unit = unit + 2.3283064365386963e-10
    radius = tl.sqrt(-2.0 * log(unit))
    sine, cosine = sincos(for_angle)
    return radius * cosine, radius * sine


@triton.jit
def words(seed, serial, index, tag):
    """Compute four blocks of words for 64-bit counters `index` of one clip or one each."""
    c0 = (index & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((index >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = c0 * 0
    c2 = (((serial >> 32) & 0xFFFF) << 16 | tag).to(tl.uint32) + zero
    c3 = (serial & 0xFFFFFFFF).to(tl.uint32) + zero
    return tl.philox(seed, c0, c1, c2, c3)


@triton.jit
def lanes(seed, serial, index, tag):
    """Draw four blocks of normals for a block of counters."""
    w0, w1, w2, w3 = words(seed, serial, index, tag)
    n0, n1 = box_muller(w0, w1)
    n2, n3 = box_muller(w2, w3)
    return n0, n1, n2, n3


@triton.jit
def unit(word):
    """Convert the upper 24 bits of a word to [0, 1)."""
    return (word >> 8).to(tl.int32, bitcast=True).to(tl.float32) * 5.960464477539063e-08


@triton.jit
def block(seed, serial, cell, groups, first_group, GROUPS: tl.constexpr):
    """Draw normals of components 4 * first_group and on, in order: a block of 4 * GROUPS."""
    index = cell * groups + first_group + tl.arange(0, GROUPS)
    n0, n1, n2, n3 = lanes(seed, serial, index, 0)
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
        n0, n1, n2, n3 = lanes(seed, b_serial, index, tag)
    else:
        w0, w1, w2, w3 = words(seed, b_serial, index, tag)
        n0, n1, n2, n3 = unit(w0), unit(w1), unit(w2), unit(w3)
    group_ptr = out_ptr + row * size + group * 4
    left = size - group * 4
    tl.store(group_ptr, n0, mask=is_counter)
    tl.store(group_ptr + 1, n1, mask=is_counter & (left > 1))
    tl.store(group_ptr + 2, n2, mask=is_counter & (left > 2))
    tl.store(group_ptr + 3, n3, mask=is_counter & (left > 3))


@torch.library.custom_op("sdevid::philox_fill", mutates_args=())
def philox_fill(
    serial: Tensor, cell: Tensor, seed: int, size: int, tag: int, normal: bool
) -> Tensor:
    """Draws (batch, steps, size) at `cell` (batch, steps), in one launch."""
    groups = triton.cdiv(size, LANES)
    out = torch.empty(*cell.shape, size, device=cell.device, dtype=torch.float32)
    counters, steps = cell.numel() * groups, cell.shape[1]
    if counters:
        fill[(triton.cdiv(counters, 1024),)](
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
            BLOCK=1024,
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
