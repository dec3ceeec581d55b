"""em_trajectory with a backward pass written by hand, for the CPU.

Hidden layers are kept for the backward pass while they fit `KEPT` bytes. Beyond, the chain is cut
into segments of that size and the state is kept at each one's start alone: its layers are made
again, and its noise drawn again, when the backward pass comes to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdevid_kernels.em_trajectory import pool, products
from sdevid_kernels.em_trajectory.coefficients import Spec
from sdevid_kernels.em_trajectory.reference import (
    Diffusion,
    Network,
    Posterior,
    Trajectory,
    settled,
)
from sdevid_kernels.em_trajectory.segment import Inputs, SegmentBack

KEPT = 64 * 2**20  # bytes of a segment's layers, states and noise
Draw = Callable[[int, int], Tensor]  # dW (steps, rows, d) of the steps from one to another


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, spec: Spec, saved: Sequence[int], draw: Draw, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = Inputs.of(spec, draw, tensors)
        differentiable = any(ctx.needs_input_grad)
        cuts = _cuts(inputs, differentiable)
        z, segment = inputs.z, pool.take(inputs, cuts[0][1])
        states = z.new_empty(len(saved), *z.shape)
        energy, width_kl = z.new_zeros(len(z)), z.new_zeros(len(z))
        starts = z.new_empty(len(cuts), *z.shape)
        for (first, last), start in zip(cuts, starts.unbind(0), strict=True):
            start.copy_(z)
            with products.scope():
                z = segment.run(start, first, last)
            places, ends = _own(saved, first, last)
            torch.index_select(
                segment.points, 0, torch.tensor(places, dtype=torch.int64), out=states[ends]
            )
            energy += segment.energy()
            width_kl += segment.width_kl()
        ctx.spec, ctx.saved, ctx.draw, ctx.cuts = spec, saved, draw, cuts
        ctx.segment = segment if differentiable and len(cuts) == 1 else None
        if ctx.segment is None:
            pool.give(segment)
        ctx.save_for_backward(starts, *tensors)
        return states, energy, width_kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        starts, *tensors = ctx.saved_tensors
        inputs = Inputs.of(ctx.spec, ctx.draw, tuple(tensors))
        kept, ctx.segment = ctx.segment, None  # a second pass through the graph makes it again
        segment = kept or pool.take(inputs, ctx.cuts[0][1])
        back = segment.back = segment.back or SegmentBack(segment)
        back.begin(*grads)
        for start, (first, last) in reversed(list(zip(starts.unbind(0), ctx.cuts, strict=True))):
            places, ends = _own(ctx.saved, first, last)
            with products.scope():
                if kept is None:
                    segment.run(start, first, last)
                back.run(first, last, places, grad_states[ends])
        made = back.end()
        pool.give(segment)
        return None, None, None, *made


def _cuts(inputs: Inputs, differentiable: bool) -> list[tuple[int, int]]:
    """First and last point of each segment, all of one length but the last."""
    steps = len(inputs.dt)
    most = KEPT if differentiable else KEPT // 64  # what nobody asks for again stays in the cache
    length = max(1, min(steps, most // inputs.bytes_a_step()))
    return [(first, min(first + length, steps)) for first in range(0, steps, length)] or [(0, 0)]


def _own(saved: Sequence[int], first: int, last: int) -> tuple[list[int], slice]:
    """Saved points behind `first` up to `last`, and 0: their places there and among the saved."""
    begin = 0 if first == 0 else bisect_right(saved, first)
    end = bisect_right(saved, last)
    return [point - first for point in saved[begin:end]], slice(begin, end)


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    noise: Tensor | Draw,
    saved: Sequence[int] | None = None,
) -> Trajectory:
    """The reference's chain, differentiable once; `dt` and the noise get no gradient.

    `noise`: dW (steps, rows, d), or what draws the steps from one to another.
    """
    weights, given = _flat(drift), settled(diffusion)
    levels: tuple[Tensor, Tensor | None]
    if isinstance(given, Tensor):
        spec, levels = Spec(len(weights)), (given, None)
    else:
        rest = (given.floor, given.start, given.stratonovich)
        spec, levels = Spec(len(weights), 0, None, False, None, False, True, *rest), given[:2]
    shifts = None
    if posterior is not None:
        more, shifts = _flat(posterior.network), posterior.shifts
        spec = spec._replace(control=len(more), **posterior.reading._asdict())
        weights = weights + more
    draw = _slices(noise) if isinstance(noise, Tensor) else noise
    points = range(len(dt) + 1) if saved is None else saved
    tensors = (z, drift_shift, *levels, shifts, dt)
    made = _Chain.apply(spec, points, draw, *tensors, *weights)  # type: ignore[no-untyped-call]
    return Trajectory(*made)


def _slices(dw: Tensor) -> Draw:
    return lambda first, last: dw[first:last]


def _flat(network: Network) -> list[Tensor]:
    layers = [*network.hidden, network.last]
    return [network.first, *(tensor for layer in layers for tensor in layer)]
