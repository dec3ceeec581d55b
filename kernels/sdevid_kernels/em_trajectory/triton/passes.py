# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""The two kernels of em_trajectory: a block of rows walked forward, and back.

`anchors` holds the state at every `chunk`-th point, or at every point. The walk back takes a chunk
at a time: it solves again from the chunk's anchor (where AGAIN; else all its states are there),
walks the chunk back with hidden layers recomputed and noise drawn again, and adds the chunk's
weight gradients to its own sum. So what it needs beside its inputs and outputs does not grow with
the steps. STILL: the control's shift is the same at every step. The rest as in mlp_stack.py and
coefficients.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory.triton import weight_grad
from sdevid_kernels.em_trajectory.triton.coefficients import pull, rates
from sdevid_kernels.em_trajectory.triton.mlp_stack import increment, through

# fmt: off


@triton.jit(do_not_specialize=["seed", "clips", "tokens", "steps", "chunk"])
def forward(
    z0, model, numbers, dw, seed, serial, place, clips, tokens, dt, kept, states, anchors, energy,
    width_kl, work, rows, size, width, steps, chunk, HEADS: tl.constexpr, BENDS: tl.constexpr, UNIT:
    tl.constexpr, BOUND: tl.constexpr, DRAWN: tl.constexpr, AGAIN: tl.constexpr, STILL:
    tl.constexpr, L: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, K:
    tl.constexpr, F: tl.constexpr, P: tl.constexpr,
):
    noise = (dw, seed, serial, place, clips, tokens)
    local, d = tl.arange(0, R), tl.arange(0, D)
    row = tl.program_id(0).to(tl.int64) * R + local
    known = row < rows
    row = tl.where(known, row, 0)
    live = known[:, None] & (d[None, :] < size)
    at = row[:, None] * size + d[None, :]
    block, sizes = (row, known, live, d), (size, width)
    track = work + tl.program_id(0).to(tl.int64) * R * (size + 2 * (L - 1) * width)
    keep = track + R * size
    keep_c = keep + (L - 1) * R * width
    z = tl.load(z0 + at, mask=live, other=0.0)
    spent, narrowed = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    first = tl.load(kept)
    tl.store(states + first * rows * size + at, z, mask=live & (first >= 0))
    for k in range(steps):
        if AGAIN:
            spot = anchors + (k // chunk) * rows * size
            tl.store(spot + at, z, mask=live & (k % chunk == 0))
        span = tl.load(dt + k * rows + row)
        move = increment(noise, k, block, span, size, DRAWN, D)
        if L > 1 or D > 64:
            tl.debug_barrier()  # the last step's values have been read
        if D > 64:
            here = (local[:, None] >= 0) & (d[None, :] < size)
            tl.store(track + local[:, None] * size + d[None, :], z, mask=here)
            tl.debug_barrier()
        ahead = 0 if STILL else k * rows * width
        h, g, u, r, _, _, _, _ = rates(
            z, track, model, ahead, keep, keep_c, local, R, block, sizes, numbers, HEADS, BENDS,
            UNIT, BOUND, False, L, D, R, TILE, K, P,
        )
        if HEADS > 0:
            spent += 0.5 * tl.sum(u * u, 1) * span
        if HEADS > 1:
            cost = tl.sum(tl.where(live, 0.5 * (r * r - 1) - tl.log(r), 0.0), 1)
            narrowed += tl.where(span > 0, cost, 0.0)
        z = tl.where(live, z + (h + g * u) * span[:, None] + r * g * move, 0.0)
        to = tl.load(kept + k + 1)
        tl.store(states + to * rows * size + at, z, mask=live & (to >= 0))
    tl.store(energy + row, spent, mask=known)
    tl.store(width_kl + row, narrowed, mask=known)


@triton.jit
def _chunk_states(
    anchors, begin, end, chunk, model, numbers, noise, dt, track, keep, keep_c, local, area, block,
    rows, sizes, HEADS: tl.constexpr, BENDS: tl.constexpr, UNIT: tl.constexpr, BOUND: tl.constexpr,
    DRAWN: tl.constexpr, AGAIN: tl.constexpr, STILL: tl.constexpr, L: tl.constexpr, D: tl.constexpr,
    R: tl.constexpr, TILE: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
):
    """The states before the steps `begin` to `end`, into `track` (slots, rows, size)."""
    row, live, d = block[0], block[2], block[3]
    size, width = sizes
    at = row[:, None] * size + d[None, :]
    inside = (local[:, None] >= 0) & (d[None, :] < size)
    here = local[:, None] * size + d[None, :]
    first = begin // chunk if AGAIN else begin
    z = tl.load(anchors + first * rows * size + at, mask=live, other=0.0)
    tl.store(track + here, z, mask=inside)
    for k in range(begin, end - 1):
        if AGAIN:
            span = tl.load(dt + k * rows + row)
            move = increment(noise, k, block, span, size, DRAWN, D)
            tl.debug_barrier()  # the state is there, and values of the step before have been read
            ahead = 0 if STILL else k * rows * width
            h, g, u, r, _, _, _, _ = rates(
                z, track + (k - begin) * R * size, model, ahead, keep, keep_c, local, area, block,
                sizes, numbers, HEADS, BENDS, UNIT, BOUND, False, L, D, R, TILE, K, P,
            )
            z = tl.where(live, z + (h + g * u) * span[:, None] + r * g * move, 0.0)
        else:
            z = tl.load(anchors + (k + 1) * rows * size + at, mask=live, other=0.0)
        tl.store(track + (k + 1 - begin) * R * size + here, z, mask=inside)


@triton.jit(
    do_not_specialize=["seed", "clips", "tokens", "steps", "chunk", "span_of_work"]
)
def backward(
    anchors, grad_states, grad_energy, grad_width, model, numbers, dw, seed, serial, place, clips,
    tokens, dt, kept, grad_z, grad_level, grad_slope, grad_shift, grad_shift_c, totals, work, rows,
    size, width, steps, chunk, span_of_work, span_of_total, HEADS: tl.constexpr, BENDS:
    tl.constexpr, UNIT: tl.constexpr, BOUND: tl.constexpr, DRAWN: tl.constexpr, AGAIN: tl.constexpr,
    STILL: tl.constexpr, L: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, K:
    tl.constexpr, F: tl.constexpr, P: tl.constexpr,
):
    noise = (dw, seed, serial, place, clips, tokens)
    local, d, sizes = tl.arange(0, R), tl.arange(0, D), (size, width)
    area = chunk * R
    track = work + tl.program_id(0).to(tl.int64) * span_of_work
    keep = track + area * size
    keep_c = keep + area * (3 * L * width + size)
    total = totals + tl.program_id(0).to(tl.int64) * span_of_total
    of_control = width * size + (L - 1) * (width + 1) * width + HEADS * size * (width + 1)
    total_c = total + span_of_total - of_control
    ups = 2 * L * area * width
    fresh = 1
    for part in range(tl.program_id(0), tl.cdiv(rows, R), tl.num_programs(0)):
        row = part * R + local.to(tl.int64)
        known = row < rows
        row = tl.where(known, row, 0)
        live = known[:, None] & (d[None, :] < size)
        block = (row, known, live, d)
        at = row[:, None] * size + d[None, :]
        for_u = tl.load(grad_energy + row, mask=known, other=0.0)[:, None]
        for_r = tl.load(grad_width + row, mask=known, other=0.0)[:, None]
        grad, begun = tl.zeros((R, D), tl.float32), 1
        for behind in range(tl.cdiv(steps, chunk)):
            begin = (tl.cdiv(steps, chunk) - 1 - behind) * chunk
            end = tl.minimum(begin + chunk, steps)
            tl.debug_barrier()  # the chunk before has been gathered
            _chunk_states(
                anchors, begin, end, chunk, model, numbers, noise, dt, track, keep, keep_c, local,
                area, block, rows, sizes, HEADS, BENDS, UNIT, BOUND, DRAWN, AGAIN, STILL, L, D, R,
                TILE, K, P,
            )
            tl.debug_barrier()
            for back in range(end - begin):
                k = end - 1 - back
                grad = _step_back(
                    grad, for_u, for_r, grad_states, kept, model, numbers, noise, dt, grad_level,
                    grad_slope, grad_shift_c, track, keep, keep_c, local, k, k - begin, steps, area,
                    block, rows, sizes, HEADS, BENDS, UNIT, BOUND, DRAWN, STILL, L, D, R, TILE, K,
                    P,
                )
            tl.debug_barrier()
            used = end - begin
            weight_grad.weights(
                track, keep, total, area, size, width, size, used * R, fresh, L, F, 16, P
            )
            weight_grad.shift(keep + ups, grad_shift, row, known, width, used, begun, R, TILE)
            if HEADS > 0:
                weight_grad.weights(
                    track, keep_c, total_c, area, size, width, HEADS * size, used * R, fresh, L, F,
                    16, P,
                )
                if STILL:
                    weight_grad.shift(
                        keep_c + ups, grad_shift_c, row, known, width, used, begun, R, TILE
                    )
            fresh, begun = 0, 0
        spot = tl.load(kept)
        there = live & (spot >= 0)
        grad += tl.load(grad_states + spot * rows * size + at, mask=there, other=0.0)
        tl.store(grad_z + at, grad, mask=live)


@triton.jit
def _step_back(
    grad, for_u, for_r, grad_states, kept, model, numbers, noise, dt, grad_level, grad_slope,
    grad_shift_c, track, keep, keep_c, local, k, slot, steps, area, block, rows, sizes, HEADS:
    tl.constexpr, BENDS: tl.constexpr, UNIT: tl.constexpr, BOUND: tl.constexpr, DRAWN: tl.constexpr,
    STILL: tl.constexpr, L: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, K:
    tl.constexpr, P: tl.constexpr,
):
    """The gradient of the state before step k from `grad`, that of the state after it without what
    falls on that state itself. Adds the step's share of level's and slope's to theirs."""
    row, live, d = block[0], block[2], block[3]
    size, width = sizes
    at = row[:, None] * size + d[None, :]
    spot = tl.load(kept + k + 1)
    there = live & (spot >= 0)
    grad += tl.load(grad_states + spot * rows * size + at, mask=there, other=0.0)
    here = local + slot * R
    inside = (local[:, None] >= 0) & (d[None, :] < size)
    z = tl.load(track + here[:, None] * size + d[None, :], mask=inside, other=0.0)
    span = tl.load(dt + k * rows + row)
    move = increment(noise, k, block, span, size, DRAWN, D)
    ahead = 0 if STILL else k * rows * width
    _, g, u, r, free, bend, rise, b = rates(
        z, track, model, ahead, keep, keep_c, here, area, block, sizes, numbers, HEADS, BENDS, UNIT,
        BOUND, True, L, D, R, TILE, K, P,
    )
    to_h, to_raw, to_width, to_level, to_slope, to_z = pull(
        grad, for_u, for_r, g, u, r, free, bend, rise, b, move, span[:, None], numbers, HEADS,
        BENDS, UNIT, BOUND,
    )
    earlier = live & (k + 1 < steps)
    to_level += tl.load(grad_level + at, mask=earlier, other=0.0)
    tl.store(grad_level + at, to_level, mask=live)
    if BENDS > 0:
        to_slope += tl.load(grad_slope + at, mask=earlier, other=0.0)
        tl.store(grad_slope + at, to_slope, mask=live)
        grad += tl.where(live, to_z, 0.0)
    to_h = tl.where(live, to_h, 0.0)
    tl.store(keep + 3 * L * area * width + here[:, None] * size + d[None, :], to_h, mask=inside)
    into = through(
        to_h, to_h, model[0], keep, here, area, keep, block, sizes, False, False, L, D, R, TILE, K,
        P,
    )
    if HEADS > 0:
        to_raw, to_width = tl.where(live, to_raw, 0.0), tl.where(live, to_width, 0.0)
        out = keep_c + 3 * L * area * width + here[:, None] * (HEADS * size) + d[None, :]
        tl.store(out, to_raw, mask=inside)
        if HEADS > 1:
            tl.store(out + size, to_width, mask=inside)
        into += through(
            to_raw, to_width, model[1], keep_c, here, area, grad_shift_c + ahead, block, sizes,
            HEADS > 1, not STILL, L, D, R, TILE, K, P,
        )
    return grad + into
