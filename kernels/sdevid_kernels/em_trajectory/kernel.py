# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""em_trajectory in one launch forward and one backward, for networks of one hidden layer.

A program walks a block of rows through time: the state stays in registers, the weights in the
caches near it. The forward pass saves the states, four bytes an element and step, and no noise; the
backward pass recomputes the hidden layers and draws the noise again, and leaves the weight
gradients to one matrix product a layer over all steps.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.em_trajectory.layers import bounded, increment, outputs, through
from sdevid_kernels.em_trajectory.reference import Network, Posterior, Trajectory
from sdevid_kernels.philox.kernel import signed

_ROWS = 16  # the least that tl.dot takes
_TILE = 32  # hidden units at a time


# fmt: off
@triton.jit(do_not_specialize=["seed", "steps", "clips", "tokens"])
def _forward(
    z0, first, shift, last, bias, first_c, shift_c, last_c, bias_c, diffusion, dt, dw, serial,
    place, states, energy, width_kl, seed, bound, rows, size, width, steps, clips, tokens,
    CONTROL: tl.constexpr, WIDTH: tl.constexpr, BOUND: tl.constexpr, DRAWN: tl.constexpr, D:
    tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, P: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    d = tl.arange(0, D)
    known = row < rows
    row = tl.where(known, row, 0)
    live = known[:, None] & (d[None, :] < size)
    at = row[:, None] * size + d[None, :]
    z = tl.load(z0 + at, mask=live, other=0.0)
    g = tl.load(diffusion + at, mask=live, other=0.0)
    tl.store(states + at, z, mask=live)
    spent, narrowed = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    for k in range(steps):
        span = tl.load(dt + k * rows + row)
        move = increment(
            dw, seed, serial, place, k, clips, row, live, d, tokens, span, size, DRAWN, D
        )
        total, _ = outputs(
            z, first, shift, last, bias, row, known, d, size, width, False, D, R, TILE, P
        )
        scale = g
        if CONTROL:
            u, r = outputs(
                z, first_c, shift_c + k * rows * width, last_c, bias_c, row, known, d, size,
                width, WIDTH, D, R, TILE, P,
)
            u = tl.where(live, bounded(u, bound, BOUND), 0.0)
            spent += 0.5 * tl.sum(u * u, 1) * span
            total += g * u
            if WIDTH:
                r = tl.sigmoid(r + 3.0)
                scale = g * r
                cost = tl.sum(tl.where(live, 0.5 * (r * r - 1) - tl.log(r), 0.0), 1)
                narrowed += tl.where(span > 0, cost, 0.0)
        z = z + total * span[:, None] + scale * move
        tl.store(states + (k + 1) * rows * size + at, z, mask=live)
    tl.store(energy + row, spent, mask=known)
    tl.store(width_kl + row, narrowed, mask=known)


@triton.jit(do_not_specialize=["seed", "steps", "clips", "tokens"])
def _backward(
    states, grad_states, grad_energy, grad_width, first, shift, last, bias, first_c, shift_c,
    last_c, bias_c, diffusion, dt, dw, serial, place, grad_z, grad_g, values, grads, grad_out,
    seed, bound, rows, size, width, steps, clips, tokens, CONTROL: tl.constexpr, WIDTH:
    tl.constexpr, BOUND: tl.constexpr, DRAWN: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
    TILE: tl.constexpr, P: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    d = tl.arange(0, D)
    known = row < rows
    row = tl.where(known, row, 0)
    live = known[:, None] & (d[None, :] < size)
    at = row[:, None] * size + d[None, :]
    g = tl.load(diffusion + at, mask=live, other=0.0)
    for_u = tl.load(grad_energy + row, mask=known, other=0.0)[:, None]
    for_r = tl.load(grad_width + row, mask=known, other=0.0)[:, None]
    grad = tl.load(grad_states + steps * rows * size + at, mask=live, other=0.0)
    to_g = tl.zeros((R, D), tl.float32)
    units = width * (2 if CONTROL else 1)
    outs = size * ((3 if WIDTH else 2) if CONTROL else 1)
    out_at = row[:, None] * outs + d[None, :]
    for back in range(steps):
        k = steps - 1 - back
        z = tl.load(states + k * rows * size + at, mask=live, other=0.0)
        span = tl.load(dt + k * rows + row)
        move = increment(
            dw, seed, serial, place, k, clips, row, live, d, tokens, span, size, DRAWN, D
        )
        step = span[:, None]
        to_drift = grad * step
        tl.store(grad_out + k * rows * outs + out_at, to_drift, mask=live)
        kept = k * rows * units
        into = through(
            to_drift, to_drift, z, first, shift, last, values + kept, grads + kept, row,
            known, d, size, width, units, False, R, D, TILE, P,
)
        if CONTROL:
            moved = shift_c + k * rows * width
            u, r = outputs(
                z, first_c, moved, last_c, bias_c, row, known, d, size, width, WIDTH, D, R, TILE, P
            )
            u = tl.where(live, bounded(u, bound, BOUND), 0.0)
            to_u = (grad * g + for_u * u) * step
            if BOUND:
                to_u *= 1 - (u / bound) * (u / bound)
            tl.store(grad_out + k * rows * outs + size + out_at, to_u, mask=live)
            to_r = to_u
            if WIDTH:
                r = tl.sigmoid(r + 3.0)
                to_r = grad * g * move + tl.where(step > 0, for_r * (r - 1 / r), 0.0)
                to_r = tl.where(live, to_r * r * (1 - r), 0.0)
                tl.store(grad_out + k * rows * outs + 2 * size + out_at, to_r, mask=live)
                move = move * r
            to_g += grad * u * step
            into += through(
                to_u, to_r, z, first_c, moved, last_c, values + kept + width, grads + kept +
                width, row, known, d, size, width, units, WIDTH, R, D, TILE, P,
)
        to_g += grad * move
        grad += into + tl.load(grad_states + k * rows * size + at, mask=live, other=0.0)
    tl.store(grad_z + at, grad, mask=live)
    tl.store(grad_g + at, to_g, mask=live)
# fmt: on


def _settings(z: Tensor, control: bool, width: bool, bound: float, drawn: bool) -> dict[str, Any]:
    padded = max(16, triton.next_power_of_2(z.shape[-1]))
    exact = "ieee" if z.device.type == "cpu" else "tf32x3"
    return {
        "CONTROL": control,
        "WIDTH": width,
        "BOUND": bound > 0,
        "DRAWN": drawn,
        "D": padded,
        "R": _ROWS,
        "TILE": _TILE,
        "P": "tf32" if torch.backends.cuda.matmul.allow_tf32 else exact,
        "num_warps": 4 if padded < 128 else 8,
        "num_stages": 2 if padded < 128 else 1,  # one more does not fit beside 256 components
    }


@torch.library.custom_op("sdevid::em_trajectory", mutates_args=())
def em_trajectory(
    z: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: Tensor,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
    bound: float,
    width: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The reference's chain; `drift` and `control`: first weight, shift, last weight, bias.

    `control` is empty for the prior; `bound` 0 leaves u unbounded. Without `dw` the noise is drawn:
    cells `place` (steps, clips) of the clips `serial`, a clip's rows being neighbours.
    """
    steps, rows = dt.shape
    states = z.new_empty(steps + 1, *z.shape)
    energy, width_kl = z.new_empty(rows), z.new_empty(rows)
    clips = len(serial)
    second: list[Tensor | None] = list(control) or [None] * 4
    sizes = (rows, z.shape[1], len(drift[0]), steps, clips, rows // clips)
    settings = _settings(z, bool(control), width, bound, dw is None)
    outs = (states, energy, width_kl, seed, bound)
    _forward[(triton.cdiv(rows, _ROWS),)](
        z, *drift, *second, diffusion, dt, dw, serial, place, *outs, *sizes, **settings
    )
    return states, energy, width_kl


@em_trajectory.register_fake
def _(z, drift, control, diffusion, dt, *_rest):
    rows = z.new_empty(len(z))
    return z.new_empty(len(dt) + 1, *z.shape), rows, torch.empty_like(rows)


@torch.library.custom_op("sdevid::em_trajectory_backward", mutates_args=())
def em_trajectory_backward(
    states: Tensor,
    grad_states: Tensor,
    grad_energy: Tensor,
    grad_width: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: Tensor,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
    bound: float,
    width: bool,
) -> list[Tensor]:
    """Gradients of z and g; of the first layers' weights, one below the other; of their
    pre-activations (steps, rows, both); of the last biases, one after the other; and of the last
    weights. Drift comes before control."""
    steps, rows = dt.shape
    size, units = states.shape[2], len(drift[0])
    both = 2 if control else 1
    outs = size + (len(control[3]) if control else 0)
    values = states.new_empty(steps, rows, both * units)
    grads, grad_out = torch.empty_like(values), states.new_empty(steps, rows, outs)
    grad_z, grad_g = torch.empty_like(states[0]), torch.empty_like(states[0])
    clips = len(serial)
    sizes = (rows, size, units, steps, clips, rows // clips)
    settings = _settings(states, bool(control), width, bound, dw is None)
    given = (states, grad_states.contiguous(), grad_energy.contiguous(), grad_width.contiguous())
    work = (grad_z, grad_g, values, grads, grad_out, seed, bound)
    second: list[Tensor | None] = list(control) or [None] * 4
    _backward[(triton.cdiv(rows, _ROWS),)](
        *given, *drift, *second, diffusion, dt, dw, serial, place, *work, *sizes, **settings
    )
    firsts = grads.flatten(0, 1).t() @ states[:-1].flatten(0, 1)
    flat, hidden = grad_out.flatten(0, 1), values.flatten(0, 1)
    lasts = [flat[:, :size].t() @ hidden[:, :units]]
    if control:
        lasts.append(flat[:, size:].t() @ hidden[:, units:])
    return [grad_z, grad_g, firsts, grads, flat.sum(0), *lasts]


@em_trajectory_backward.register_fake
def _(states, grad_states, grad_energy, grad_width, drift, control, diffusion, dt, *_rest):
    both = 2 if control else 1
    size, units = states.shape[2], len(drift[0])
    outs = size + (len(control[3]) if control else 0)
    made = [torch.empty_like(states[0]), torch.empty_like(states[0])]
    made += [states.new_empty(both * units, size), states.new_empty(*dt.shape, both * units)]
    made += [states.new_empty(outs), torch.empty_like(drift[2])]
    return [*made, torch.empty_like(control[2])] if control else made


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, control, diffusion, dt, dw, serial, place, ctx.seed, ctx.bound, ctx.width = inputs
    ctx.count = len(control)
    ctx.save_for_backward(output[0], *drift, *control, diffusion, dt, dw, serial, place)


def _pull_back(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    states, *kept = ctx.saved_tensors
    drift, control, rest = kept[:4], kept[4 : 4 + ctx.count], kept[4 + ctx.count :]
    made = em_trajectory_backward(
        states, *grads, drift, control, *rest, ctx.seed, ctx.bound, ctx.width
    )
    grad_z, grad_g, firsts, pre, biases, *lasts = made
    units, size = len(drift[0]), states.shape[2]
    to_drift = [firsts[:units], pre[..., :units].sum(0), lasts[0], biases[:size]]
    to_control = []
    if control:
        to_control = [firsts[units:], pre[..., units:], lasts[1], biases[size:]]
    return grad_z, to_drift, to_control, grad_g, *[None] * 7


em_trajectory.register_autograd(_pull_back, setup_context=_setup)


def run(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor,
    posterior: Posterior | None,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
) -> Trajectory:
    """`em_trajectory` on any strides. `noise`: (seed, serial, place (steps, clips)) or dW."""
    first = [drift.first, drift_shift, *drift.last]
    second = []
    if posterior is not None:
        network = posterior.network
        second = [network.first, posterior.shifts, *network.last]
    if isinstance(noise, Tensor):
        nothing = torch.zeros(1, dtype=torch.int64, device=z.device)
        keys: tuple[Any, ...] = (noise.contiguous(), nothing, nothing, 0)
    else:
        keys = (None, noise[1], noise[2].contiguous(), signed(noise[0]))
    bound = (posterior.bound or 0.0) if posterior is not None else 0.0
    made = em_trajectory(
        z.contiguous(),
        [x.contiguous() for x in first],
        [x.contiguous() for x in second],
        diffusion.expand_as(z).contiguous(),
        dt.contiguous(),
        *keys,
        bound,
        posterior is not None and posterior.width,
    )
    return Trajectory(*made)
