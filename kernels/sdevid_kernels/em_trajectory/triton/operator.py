# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001
"""em_trajectory as PyTorch operators: one launch forward and one backward.

A program solves a block of rows through time: the state stays in registers; the weights stay in
shared memory on the way forward, where they fit, else in the caches near it. The forward pass keeps
the state for the backward pass, at every step or, where nothing else that grows with the steps is
at hand, at every few; it keeps no noise and no hidden layer. Each program sums weight gradients as
it walks back; the sums of programs are added last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Trajectory
from sdevid_kernels.em_trajectory.triton import passes
from sdevid_kernels.em_trajectory.triton.launch import (
    CHUNK,
    Launch,
    LaunchForm,
    block_rows,
    form_of,
    gradient_programs,
    processors,
    span_of,
)
from sdevid_kernels.philox.kernel import signed


@torch.library.custom_op("sdevid::em_trajectory", mutates_args=())
def em_trajectory(
    z: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: list[Tensor],
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    cell: Tensor,
    saved_index: Tensor,
    seed: int,
    numbers: list[float],
    flags: list[int],
    points: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solve the reference's chain; also return the states at every `chunk`-th point.

    `drift` and `control`: first weight, shift, weight and bias of each further hidden layer, last
    weight, bias; `control` is empty for the prior. `diffusion`: g, or level, slope and
    curve. Without `dw` the noise is drawn: cells `cell` (steps, clips) of the clips `serial`, a
    clip's rows being neighbours. `saved_index` (steps + 1) is each point's index among the
    `points` saved ones, or -1. `chunk` 0: all are saved, and there are no anchors. The rest as in
    `Form`.
    """
    form = LaunchForm(seed, numbers, flags, points, chunk)
    launch = Launch(drift, control, diffusion, dt, dw, serial, cell, saved_index, form)
    steps, rows = dt.shape
    states = z.new_empty(points, *z.shape)
    anchors = z.new_empty(triton.cdiv(steps, chunk) if chunk else 0, *z.shape)
    energy, width_kl = z.new_empty(rows), z.new_empty(rows)
    each, width = block_rows(rows, processors(z.device)), len(drift[0])
    programs = triton.cdiv(rows, each)
    passes.forward[(programs,)](
        z_ptr=z,
        states_ptr=states,
        anchors_ptr=anchors,
        energy_ptr=energy,
        width_kl_ptr=width_kl,
        work_ptr=z.new_empty(programs, each, z.shape[1] + 2 * (launch.depth - 1) * width),
        chunk=chunk,
        **launch.arguments(z, recompute=chunk > 0, keep_weights=True),
    )
    return states, energy, width_kl, anchors


@em_trajectory.register_fake
def _(z, drift, control, diffusion, dt, *rest):
    points, chunk = rest[-2:]
    rows = z.new_empty(len(z))
    anchors = z.new_empty(-(-len(dt) // chunk) if chunk else 0, *z.shape)
    return z.new_empty(points, *z.shape), rows, torch.empty_like(rows), anchors


@torch.library.custom_op("sdevid::em_trajectory_backward", mutates_args=())
def em_trajectory_backward(
    anchors: Tensor,
    grad_states: Tensor,
    grad_energy: Tensor,
    grad_width: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: list[Tensor],
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    cell: Tensor,
    saved_index: Tensor,
    seed: int,
    numbers: list[float],
    flags: list[int],
    points: int,
    chunk: int,
) -> list[Tensor]:
    """Compute the gradients of the chain's inputs, from those of its outputs.

    In order: z, the diffusion's tensors, the drift's shift, the control's if any, and all weights
    in one vector, the drift's before the control's. `anchors` are those of the forward pass or,
    with `chunk` 0, the states at all points.
    """
    form = LaunchForm(seed, numbers, flags, points, chunk)
    launch = Launch(drift, control, diffusion, dt, dw, serial, cell, saved_index, form)
    rows, size = anchors.shape[1:]
    width, span = len(drift[0]), span_of(drift) + (span_of(control) if control else 0)
    multiprocessors = processors(anchors.device)
    programs = gradient_programs(rows, span, multiprocessors)
    chunk = chunk if chunk > 1 else min(CHUNK, len(dt))
    work = (
        chunk
        * block_rows(rows, multiprocessors)
        * (2 * 3 * launch.depth * width + (1 + 1 + 2) * size)
    )
    totals = anchors.new_empty(programs, span)
    grad_z, *to_diffusion = (torch.empty_like(anchors[0]) for _ in range(1 + len(diffusion)))
    shifts = [torch.empty_like(network[1]) for network in (drift, control) if network]
    passes.backward[(programs,)](
        anchors_ptr=anchors,
        grad_states_ptr=grad_states.contiguous(),
        grad_energy_ptr=grad_energy.contiguous(),
        grad_width_ptr=grad_width.contiguous(),
        grad_z_ptr=grad_z,
        grad_level_ptr=to_diffusion[0],
        grad_slope_ptr=to_diffusion[1] if len(to_diffusion) > 1 else None,
        grad_curve_ptr=to_diffusion[2] if len(to_diffusion) > 1 else None,
        grad_drift_shift_ptr=shifts[0],
        grad_control_shift_ptr=shifts[1] if control else None,
        totals_ptr=totals,
        work_ptr=anchors.new_empty(programs, work),
        chunk=chunk,
        work_stride=work,
        total_stride=span,
        **launch.arguments(anchors[0], recompute=form.chunk > 1, keep_weights=False),
    )
    weights = totals.view(-1) if programs == 1 else totals.sum(0)
    return [grad_z, *to_diffusion, *shifts, weights]


@em_trajectory_backward.register_fake
def _(anchors, grad_states, grad_energy, grad_width, drift, control, diffusion, *_rest):
    outs = [torch.empty_like(anchors[0]) for _ in range(1 + len(diffusion))]
    shifts = [torch.empty_like(network[1]) for network in (drift, control) if network]
    span = span_of(drift) + (span_of(control) if control else 0)
    return [*outs, *shifts, anchors.new_empty(span)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, control, diffusion, dt, dw, serial, cell, saved_index, *ctx.form = inputs
    ctx.counts = (len(drift), len(control), len(diffusion))
    states, _, _, anchors = output
    ctx.mark_non_differentiable(anchors)
    ctx.set_materialize_grads(False)
    solved = anchors if ctx.form[-1] else states
    leaves = (*drift, *control, *diffusion)
    ctx.save_for_backward(solved, *leaves, dt, dw, serial, cell, saved_index)


def _pull_back(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    solved, *saved = ctx.saved_tensors
    of_drift, of_control, of_diffusion = ctx.counts
    drift, saved = list(saved[:of_drift]), saved[of_drift:]
    control, saved = list(saved[:of_control]), saved[of_control:]
    diffusion, rest = list(saved[:of_diffusion]), saved[of_diffusion:]
    rows, points = solved.shape[1], ctx.form[-2]
    shapes = ((points, *solved.shape[1:]), (rows,), (rows,))
    output_grads = [
        solved.new_zeros(shape) if grad is None else grad
        for grad, shape in zip(grads[:3], shapes, strict=True)
    ]
    grad_z, *others, weights = em_trajectory_backward(
        solved, *output_grads, drift, control, diffusion, *rest, *ctx.form
    )
    to_diffusion, shifts = others[:of_diffusion], others[of_diffusion:]
    to_drift, end = _unpack(weights, drift, shifts[0], 0)
    to_control = _unpack(weights, control, shifts[1], end)[0] if control else []
    return grad_z, to_drift, to_control, to_diffusion, *[None] * 10


def _unpack(
    flat: Tensor, network: list[Tensor], shift: Tensor, begin: int
) -> tuple[list[Tensor], int]:
    """Cut a network's gradients from `flat`, from `begin` on; return them and where they end."""
    gradients = []
    for index, tensor in enumerate(network):
        if index == 1:
            gradients.append(shift)
            continue
        gradients.append(flat[begin : begin + tensor.numel()].view_as(tensor))
        begin += tensor.numel()
    return gradients, begin


em_trajectory.register_autograd(_pull_back, setup_context=_setup)


def _saved_indices(saved: tuple[int, ...] | None, steps: int, device: torch.device) -> Tensor:
    """Index each point among the saved ones, -1 where it is not saved: (steps + 1,)."""
    make = _new_saved_indices if torch.compiler.is_compiling() else _cached_saved_indices
    return make(saved, steps, device)


def _new_saved_indices(saved: tuple[int, ...] | None, steps: int, device: torch.device) -> Tensor:
    if saved is None:
        return torch.arange(steps + 1, device=device)
    indices = torch.full((steps + 1,), -1)
    indices[list(saved)] = torch.arange(len(saved))
    return indices.to(device)


# Without the cache each call copies to the device, and waits.
_cached_saved_indices = lru_cache(maxsize=64)(_new_saved_indices)


def _flat(network: Network, shift: Tensor) -> list[Tensor]:
    inner = [x for pair in network.hidden for x in pair]
    return [x.float().contiguous() for x in (network.first, shift, *inner, *network.last)]


def launch_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
    saved: tuple[int, ...] | None,
) -> Trajectory:
    """Solve the chain on any strides. `noise`: (seed, serial, cell (steps, clips)) or dW.

    Shapes and values are those that `door.check` lets through.
    """
    if isinstance(noise, Tensor):
        unused = _saved_indices(None, 0, z.device)
        keys: tuple[Any, ...] = (noise.contiguous(), unused, unused)
        seed = 0
    else:
        keys = (None, noise[1], noise[2].contiguous())
        seed = signed(noise[0])
    if isinstance(diffusion, Diffusion):
        assert diffusion.slope is not None  # settled before
        assert diffusion.curve is not None
        terms = [diffusion.level, diffusion.slope, diffusion.curve]
    else:
        terms = [diffusion]
    states, energy, width_kl, _ = em_trajectory(
        z.contiguous(),
        _flat(drift, drift_shift),
        [] if posterior is None else _flat(posterior.network, posterior.shifts),
        [term.expand_as(z).contiguous() for term in terms],
        dt.contiguous(),
        *keys,
        _saved_indices(saved, len(dt), z.device),
        *form_of(diffusion, posterior, seed, saved, len(dt)),
    )
    return Trajectory(states, energy, width_kl)
