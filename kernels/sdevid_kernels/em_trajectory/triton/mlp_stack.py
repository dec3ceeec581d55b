# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""Parts of the fused chain: noise, and SiLU networks a tile of hidden units at a time.

A network is (first weight, ((weight, bias) of each further hidden layer), last weight, last bias),
a block (rows, which of them exist, which elements exist, components), and sizes (components, hidden
units). What the hidden layers leave behind lies in `keep`, arrays of `area` rows: each layer's
values, then (for the backward pass) their slopes, then their pre-activations' gradients, then the
outputs' gradients. `local` names this step's rows there, and in `track`, which holds the states. A
state of more than 64 components is read from `track`: from registers, a product over all of it
would take too many of them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.philox.kernel import lanes


@triton.jit
def increment(
    noise,
    k,
    block,
    span,
    size,
    DRAWN: tl.constexpr,
    D: tl.constexpr,
):
    """dW of a block at step k: (rows, D). `noise`: dW, seed, serials, cells, clips, rows a clip."""
    dw, seed, serial, place, clips, tokens = noise
    row, live, d = block[0], block[2], block[3]
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
def first_layer(
    z,
    track,
    local,
    first,
    shift,
    block,
    unit,
    sizes,
    D: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """Pre-activations of a tile of the first layer's units: (rows, tile)."""
    row, known, d = block[0], block[1], block[3]
    size, width = sizes
    there = known[:, None] & (unit[None, :] < width)
    pre = tl.load(shift + row[:, None] * width + unit[None, :], mask=there, other=0.0)
    if D > 64:
        pre += inner_layer(track, local, first, unit, size, width, R, TILE, K, P)
    else:
        inside = (unit[None, :] < width) & (d[:, None] < size)
        weight = tl.load(first + unit[None, :] * size + d[:, None], mask=inside, other=0.0)
        pre += tl.dot(z, weight, input_precision=P)
    return pre


@triton.jit
def inner_layer(
    values,
    local,
    weight,
    unit,
    inputs,
    width,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """`values` (rows, inputs) by a tile of the rows of `weight` (width, inputs)."""
    made = tl.zeros((R, TILE), tl.float32)
    for begin in range(0, inputs, K):
        k = begin + tl.arange(0, K)
        at = values + local[:, None] * inputs + k[None, :]
        x = tl.load(at, mask=(local[:, None] >= 0) & (k[None, :] < inputs), other=0.0)
        inside = (unit[None, :] < width) & (k[:, None] < inputs)
        part = tl.load(weight + unit[None, :] * inputs + k[:, None], mask=inside, other=0.0)
        made += tl.dot(x, part, input_precision=P)
    return made


@triton.jit
def inner_back(
    ups,
    local,
    weight,
    unit,
    outputs,
    width,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """`ups` (rows, outputs) by a tile of the columns of `weight` (outputs, width)."""
    into = tl.zeros((R, TILE), tl.float32)
    for begin in range(0, outputs, K):
        k = begin + tl.arange(0, K)
        at = ups + local[:, None] * outputs + k[None, :]
        up = tl.load(at, mask=(local[:, None] >= 0) & (k[None, :] < outputs), other=0.0)
        inside = (unit[None, :] < width) & (k[:, None] < outputs)
        part = tl.load(weight + k[:, None] * width + unit[None, :], mask=inside, other=0.0)
        into += tl.dot(up, part, input_precision=P)
    return into


@triton.jit
def last_layer(last, at, d, unit, size, width):
    """The last layer's weights of a tile, (D, tile), from output `at` on."""
    inside = (unit[None, :] < width) & (d[:, None] < size)
    return tl.load(last + (at + d)[:, None] * width + unit[None, :], mask=inside, other=0.0)


@triton.jit
def outputs(
    z,
    track,
    net,
    shift,
    keep,
    local,
    area,
    block,
    sizes,
    TWO: tl.constexpr,
    BACK: tl.constexpr,
    L: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """A network's outputs (rows, D), and the second half of them where TWO.

    Leaves in `keep` the values that the next layer reads or, where BACK, all values and slopes.
    """
    d = block[3]
    size, width = sizes
    one = tl.load(net[3] + d, mask=d < size, other=0.0)[None, :] + tl.zeros((R, D), tl.float32)
    two = tl.zeros((R, D), tl.float32)
    if TWO:
        two += tl.load(net[3] + size + d, mask=d < size, other=0.0)[None, :]
    for layer in tl.static_range(L):
        if layer > 0:
            tl.debug_barrier()  # its values are there
        for start in range(0, width, TILE):
            unit = start + tl.arange(0, TILE)
            if layer == 0:
                pre = first_layer(
                    z, track, local, net[0], shift, block, unit, sizes, D, R, TILE, K, P
                )
            else:
                values, inner = keep + (layer - 1) * area * width, net[1][layer - 1]
                pre = inner_layer(values, local, inner[0], unit, width, width, R, TILE, K, P)
                pre += tl.load(inner[1] + unit, mask=unit < width, other=0.0)[None, :]
            s = tl.sigmoid(pre)
            value = pre * s
            at = local[:, None] * width + unit[None, :]
            inside = (local[:, None] >= 0) & (unit[None, :] < width)
            if BACK or layer + 1 < L:
                tl.store(keep + layer * area * width + at, value, mask=inside)
            if BACK:
                slopes = keep + (L + layer) * area * width
                tl.store(slopes + at, s * (1 + pre * (1 - s)), mask=inside)
            if layer + 1 == L:
                weight = tl.trans(last_layer(net[2], 0, d, unit, size, width))
                one += tl.dot(value, weight, input_precision=P)
                if TWO:
                    weight = tl.trans(last_layer(net[2], size, d, unit, size, width))
                    two += tl.dot(value, weight, input_precision=P)
    return one, two


@triton.jit
def through(
    grad,
    second,
    net,
    keep,
    local,
    area,
    shifts,
    block,
    sizes,
    TWO: tl.constexpr,
    SHIFTS: tl.constexpr,
    L: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """The state's gradient from the outputs', by the slopes in `keep`.

    Leaves the pre-activations' gradients in `keep`, and the first layer's in `shifts` where SHIFTS.
    """
    row, known, d = block[0], block[1], block[3]
    size, width = sizes
    into = tl.zeros((R, D), tl.float32)
    for layer in tl.static_range(L - 1, -1, -1):
        tl.debug_barrier()  # slopes, and the next layer's gradients, are there
        for start in range(0, width, TILE):
            unit = start + tl.arange(0, TILE)
            at = local[:, None] * width + unit[None, :]
            inside = (local[:, None] >= 0) & (unit[None, :] < width)
            if layer + 1 == L and D > 64:
                out, many = keep + 3 * L * area * width, (2 if TWO else 1) * size
                up = inner_back(out, local, net[2], unit, many, width, R, TILE, K, P)
            elif layer + 1 == L:
                up = tl.dot(grad, last_layer(net[2], 0, d, unit, size, width), input_precision=P)
                if TWO:
                    weight = last_layer(net[2], size, d, unit, size, width)
                    up += tl.dot(second, weight, input_precision=P)
            else:
                ups = keep + (2 * L + layer + 1) * area * width
                up = inner_back(ups, local, net[1][layer][0], unit, width, width, R, TILE, K, P)
            up *= tl.load(keep + (L + layer) * area * width + at, mask=inside, other=0.0)
            tl.store(keep + (2 * L + layer) * area * width + at, up, mask=inside)
            if layer == 0:
                if SHIFTS:
                    there = known[:, None] & (unit[None, :] < width)
                    tl.store(shifts + row[:, None] * width + unit[None, :], up, mask=there)
                within = (unit[:, None] < width) & (d[None, :] < size)
                weight = tl.load(net[0] + unit[:, None] * size + d[None, :], mask=within, other=0.0)
                into += tl.dot(up, weight, input_precision=P)
    return into
