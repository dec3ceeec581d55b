# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""How the fused chain reads g, u and r, and their gradients, on a block (rows, components).

Constants say which of the definition's forms is meant. HEADS: 0 the prior, 1 a control, 2 a control
and a width. BENDS: 0 g is given, 1 it depends on the state, 2 so with Stratonovich's drift. UNIT: 0
no unit, 1 a motion beside the drift, 2 in its place. A model is (drift, control, the drift's shift,
the control's, g or its level, its slope), numbers (floor, start, unit, bound).
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory import reference
from sdevid_kernels.em_trajectory.triton.mlp_stack import outputs

WIDTH_START = tl.constexpr(reference.WIDTH_START)


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def diffusion_at(z, level, slope, floor, start, BENDS: tl.constexpr):
    """g; where it depends on the state also tanh z and the softplus's slope."""
    g, bend, rise = level, level, level
    if BENDS > 0:
        bend = tanh(z)
        raw = level + slope * bend + start
        rise = tl.sigmoid(raw)
        g = floor + tl.maximum(raw, 0.0) + tl.log(1 + tl.exp(-tl.abs(raw)))
    return g, bend, rise


@triton.jit
def rates(
    z,
    track,
    model,
    ahead,
    keep,
    keep_c,
    local,
    area,
    block,
    sizes,
    numbers,
    HEADS: tl.constexpr,
    BENDS: tl.constexpr,
    UNIT: tl.constexpr,
    BOUND: tl.constexpr,
    BACK: tl.constexpr,
    L: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    TILE: tl.constexpr,
    K: tl.constexpr,
    P: tl.constexpr,
):
    """h, g, u and r at `z`; then what their gradients need: u before its bound, tanh z, g's rise
    and slope. The step's shift of the control lies `ahead` of its first."""
    drift, control, shift, shift_c, level, slope = model
    floor, start, unit, bound = numbers
    row, live, d = block[0], block[2], block[3]
    at = row[:, None] * sizes[0] + d[None, :]
    h, _ = outputs(
        z, track, drift, shift, keep, local, area, block, sizes, False, BACK, L, D, R, TILE, K, P
    )
    a = tl.load(level + at, mask=live, other=0.0)  # again each step: registers are scarce
    b = a
    if BENDS > 0:
        b = tl.load(slope + at, mask=live, other=0.0)
    g, bend, rise = diffusion_at(z, a, b, floor, start, BENDS)
    g = tl.where(live, g, 1.0)
    if BENDS > 1:
        h += 0.5 * g * rise * b * (1 - bend * bend)
    u, r, free = tl.zeros((R, D), tl.float32), tl.full((R, D), 1.0, tl.float32), h
    if HEADS > 0:
        free, raw = outputs(
            z,
            track,
            control,
            shift_c + ahead,
            keep_c,
            local,
            area,
            block,
            sizes,
            HEADS > 1,
            BACK,
            L,
            D,
            R,
            TILE,
            K,
            P,
        )
        if UNIT > 0:
            free *= unit
            if UNIT > 1:
                free -= h
            free = free / g
        u = tl.where(live, free, 0.0)
        if BOUND:
            u = bound * tanh(u / bound)
        if HEADS > 1:
            raw += WIDTH_START
            if UNIT > 0:
                raw += tl.log(unit / g)
            r = tl.where(live, tl.sigmoid(raw), 1.0)
    return h, g, u, r, free, bend, rise, b


@triton.jit
def pull(
    grad,
    for_u,
    for_r,
    g,
    u,
    r,
    free,
    bend,
    rise,
    slope,
    move,
    step,
    numbers,
    HEADS: tl.constexpr,
    BENDS: tl.constexpr,
    UNIT: tl.constexpr,
    BOUND: tl.constexpr,
):
    """Gradients of the drift's outputs, of the control's two, of level and slope; the state's by g.

    From the next state's gradient `grad` and those of energy and width's KL.
    """
    unit, bound = numbers[2], numbers[3]
    to_h = grad * step
    to_g = grad * (u * step + r * move)
    to_raw, to_width = to_h, to_h
    if HEADS > 0:
        to_free = (grad * g + for_u * u) * step
        if BOUND:
            to_free *= 1 - (u / bound) * (u / bound)
        to_raw = to_free
        if UNIT > 0:
            to_raw = to_free * unit / g
            to_g -= to_free * free / g
            if UNIT > 1:
                to_h -= to_free / g
        if HEADS > 1:
            to_width = grad * g * move + tl.where(step > 0, for_r * (r - 1 / r), 0.0)
            to_width *= r * (1 - r)
            if UNIT > 0:
                to_g -= to_width / g
    to_level, to_slope, to_z = to_g, to_g, to_g
    if BENDS > 0:
        flat = 1 - bend * bend
        if BENDS > 1:
            to_g += 0.5 * to_h * rise * slope * flat
        to_level = to_g * rise
        if BENDS > 1:
            to_level += 0.5 * to_h * g * rise * (1 - rise) * slope * flat
        to_slope = to_level * bend
        to_z = to_level * slope
        if BENDS > 1:
            to_slope += 0.5 * to_h * g * rise * flat
            to_z -= to_h * g * rise * slope * bend
        to_z *= flat
    return to_h, to_raw, to_width, to_level, to_slope, to_z
