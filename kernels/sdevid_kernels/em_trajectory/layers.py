# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Parts of the fused chain: noise, and SiLU networks a tile of hidden units at a time."""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.philox.kernel import lanes

# fmt: off


@triton.jit
def increment(
    dw, seed, serial, place, k, clips, row, live, d, tokens, span, size, DRAWN: tl.constexpr,
    D: tl.constexpr,
):
    """dW of a block of rows at step k: (rows, D)."""
    if DRAWN:
        clip = row // tokens
        group = (row % tokens) * ((size + 3) // 4)
        groups = tokens * ((size + 3) // 4)
        index = tl.load(place + k * clips + clip) * groups + group
        index = index[:, None] + tl.arange(0, D // 4)[None, :]
        owner = tl.load(serial + clip)[:, None] + index * 0
        n0, n1, n2, n3 = lanes(seed, owner, index, 0)
        eps = tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))
        move = eps * tl.sqrt(span)[:, None]
    else:
        at = (k * tokens * clips + row)[:, None] * size + d[None, :]
        move = tl.load(dw + at, mask=live, other=0.0)
    return move


@triton.jit
def hidden(z, first, shift, row, known, d, unit, size, width, P: tl.constexpr):
    """Pre-activations of a tile of hidden units: (rows, tile)."""
    inside = (unit[None, :] < width) & (d[:, None] < size)
    weight = tl.load(first + unit[None, :] * size + d[:, None], mask=inside, other=0.0)
    there = known[:, None] & (unit[None, :] < width)
    moved = tl.load(shift + row[:, None] * width + unit[None, :], mask=there, other=0.0)
    return tl.dot(z, weight, input_precision=P) + moved


@triton.jit
def last_layer(last, at, d, unit, size, width):
    """The last layer's weights of a tile, (D, tile), from output `at` on."""
    inside = (unit[None, :] < width) & (d[:, None] < size)
    return tl.load(last + (at + d)[:, None] * width + unit[None, :], mask=inside, other=0.0)


@triton.jit
def outputs(
    z, first, shift, last, bias, row, known, d, size, width, TWO: tl.constexpr, D:
    tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, P: tl.constexpr,
):
    """A network's outputs (rows, D), and the second half of them where TWO."""
    one = tl.load(bias + d, mask=d < size, other=0.0)[None, :] + tl.zeros((R, D), tl.float32)
    two = tl.zeros((R, D), tl.float32)
    if TWO:
        two += tl.load(bias + size + d, mask=d < size, other=0.0)[None, :]
    for start in range(0, width, TILE):
        unit = start + tl.arange(0, TILE)
        pre = hidden(z, first, shift, row, known, d, unit, size, width, P)
        value = pre * tl.sigmoid(pre)
        one += tl.dot(value, tl.trans(last_layer(last, 0, d, unit, size, width)), input_precision=P)
        if TWO:
            weight = tl.trans(last_layer(last, size, d, unit, size, width))
            two += tl.dot(value, weight, input_precision=P)
    return one, two


@triton.jit
def bounded(raw, bound, BOUND: tl.constexpr):
    value = raw
    if BOUND:
        value = bound * (2 * tl.sigmoid(2 * raw / bound) - 1)
    return value


@triton.jit
def through(
    grad, second, z, first, shift, last, values, grads, row, known, d, size, width, stride,
    TWO: tl.constexpr, R: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, P: tl.constexpr,
):
    """The state's gradient from the outputs', leaving SiLUs' values and gradients behind."""
    into = tl.zeros((R, D), tl.float32)
    for start in range(0, width, TILE):
        unit = start + tl.arange(0, TILE)
        there = known[:, None] & (unit[None, :] < width)
        pre = hidden(z, first, shift, row, known, d, unit, size, width, P)
        s = tl.sigmoid(pre)
        up = tl.dot(grad, last_layer(last, 0, d, unit, size, width), input_precision=P)
        if TWO:
            up += tl.dot(second, last_layer(last, size, d, unit, size, width), input_precision=P)
        up *= s * (1 + pre * (1 - s))
        at = row[:, None] * stride + unit[None, :]
        tl.store(values + at, pre * s, mask=there)
        tl.store(grads + at, up, mask=there)
        inside = (unit[:, None] < width) & (d[None, :] < size)
        weight = tl.load(first + unit[:, None] * size + d[None, :], mask=inside, other=0.0)
        into += tl.dot(up, weight, input_precision=P)
    return into
