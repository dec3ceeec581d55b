# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Weight gradients of a program's last steps, added to those of the program's steps before.

Each program has a sum of its own, so that nothing depends on the order in which programs run.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(
    ups, many, values, wide, total, count, fresh, F: tl.constexpr, K: tl.constexpr, P: tl.constexpr
):
    """total (many, wide) += ups' values over `count` rows; F x F at a time."""
    for top in range(0, many, F):
        m = top + tl.arange(0, F)
        for left in range(0, wide, F):
            n = left + tl.arange(0, F)
            at = total + m[:, None] * wide + n[None, :]
            inside = (m[:, None] < many) & (n[None, :] < wide)
            found = tl.load(at, mask=inside & (fresh == 0), other=0.0)
            for begin in range(0, count, K):
                r = begin + tl.arange(0, K)
                here = (m[:, None] < many) & (r[None, :] < count)
                up = tl.load(ups + r[None, :] * many + m[:, None], mask=here, other=0.0)
                there = (r[:, None] < count) & (n[None, :] < wide)
                value = tl.load(values + r[:, None] * wide + n[None, :], mask=there, other=0.0)
                found += tl.dot(up, value, input_precision=P)
            tl.store(at, found, mask=inside)


@triton.jit
def _sum(ups, many, total, count, fresh, F: tl.constexpr, K: tl.constexpr):
    """total (many) += the sum of ups over `count` rows."""
    for top in range(0, many, F):
        m = top + tl.arange(0, F)
        found = tl.load(total + m, mask=(m < many) & (fresh == 0), other=0.0)
        for begin in range(0, count, K):
            r = begin + tl.arange(0, K)
            here = (m[:, None] < many) & (r[None, :] < count)
            found += tl.sum(tl.load(ups + r[None, :] * many + m[:, None], mask=here, other=0.0), 1)
        tl.store(total + m, found, mask=m < many)


@triton.jit
def weights(
    states,
    keep,
    total,
    area,
    size,
    width,
    outs,
    count,
    fresh,
    L: tl.constexpr,
    F: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """A network's gradients, laid out as `Spans` says, from the first `count` rows of `keep`."""
    each = area * width
    ups = keep + 2 * L * each
    _product(ups, width, states, size, total, count, fresh, F, K, P)
    total += width * size
    for layer in tl.static_range(1, L):
        values, here = keep + (layer - 1) * each, ups + layer * each
        _product(here, width, values, width, total, count, fresh, F, K, P)
        _sum(here, width, total + width * width, count, fresh, F, K)
        total += width * width + width
    out = keep + 3 * L * each
    _product(out, outs, keep + (L - 1) * each, width, total, count, fresh, F, K, P)
    _sum(out, outs, total + outs * width, count, fresh, F, K)


@triton.jit
def shift(ups, total, row, known, width, used, fresh, R: tl.constexpr, TILE: tl.constexpr):
    """total (rows, width) += the sum of ups over the `used` steps, for one block of rows."""
    for start in range(0, width, TILE):
        unit = start + tl.arange(0, TILE)
        inside = unit[None, :] < width
        there = known[:, None] & inside
        at = total + row[:, None] * width + unit[None, :]
        found = tl.load(at, mask=there & (fresh == 0), other=0.0)
        for slot in range(used):
            place = (slot * R + tl.arange(0, R))[:, None] * width + unit[None, :]
            found += tl.load(ups + place, mask=inside & (place >= 0), other=0.0)
        tl.store(at, found, mask=there)
