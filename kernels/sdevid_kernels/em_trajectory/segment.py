"""Part of a chain forward and back, in buffers made once and used for every part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdevid_kernels.em_trajectory.coefficients import Reader, ReaderBack, Spec
from sdevid_kernels.em_trajectory.tower import Tower, TowerBack, Weights, widths

_GATHERED = 2**19  # hidden units, of several steps, in one product of a weight gradient


class Inputs(NamedTuple):
    """What a chain is solved from."""

    spec: Spec
    draw: Callable[[int, int], Tensor]
    z: Tensor
    drift_shift: Tensor
    levels: list[Tensor]  # g, or its level and slope
    shifts: Tensor | None
    dt: Tensor  # (steps, rows or 1 where all are alike, 1)
    networks: list[Weights]

    @staticmethod
    def of(spec: Spec, draw: Callable[[int, int], Tensor], tensors: tuple[Any, ...]) -> Inputs:
        """From the tensors in the order in which the operator is given them."""
        z, drift_shift, level, slope, shifts, dt, *weights = tensors
        levels = [level] if slope is None else [level, slope]
        alike = dt[:, :1] if bool((dt == dt[:, :1]).all()) else dt
        networks = [weights[: spec.drift]] + ([weights[spec.drift :]] if spec.control else [])
        return Inputs(spec, draw, z, drift_shift, levels, shifts, alike[..., None], networks)

    def towers(self) -> list[list[Weights]]:
        """The networks, those of one depth together."""
        if len({len(weights) for weights in self.networks}) == 1:
            return [self.networks]
        return [[weights] for weights in self.networks]

    def bytes_a_step(self) -> int:
        """What a segment takes for each of its steps."""
        hidden = sum(sum(map(sum, widths(networks)[:-1])) for networks in self.towers())
        outs = sum(len(weights[-1]) for weights in self.networks)
        states = 4 * self.z.shape[1]  # states, their gradients, noise, q
        return len(self.z) * (hidden + outs + states) * self.z.element_size()


class Segment:
    """`length` steps of a chain: their states, and all that the way back needs of them.

    Its buffers depend on shapes alone; `bind` lends it a chain's tensors until `release`.
    """

    def __init__(self, inputs: Inputs, length: int) -> None:
        self.key, spec, z = self.key_of(inputs, length), inputs.spec, inputs.z.detach()
        self.bytes = length * inputs.bytes_a_step()
        self.points = z.new_empty(length + 1, *z.shape)
        states = self.points[:-1].unbind(0)
        self.towers = [Tower(widths(networks), z, states) for networks in inputs.towers()]
        outs = [out for tower in self.towers for out in tower.out.parts]
        self.h = outs[0]
        self.raw = outs[1] if spec.control else z.new_empty(length, len(z), 0)
        self.u = self.raw[..., : z.shape[1]]
        self.r = self.raw[..., z.shape[1] :] if spec.width else None  # both once read
        self.q = torch.empty_like(self.points[1:]) if spec.unit is not None else None
        self._steps = self._cut(bool(spec.control))
        self.back: SegmentBack | None = None

    @staticmethod
    def key_of(inputs: Inputs, length: int) -> tuple[object, ...]:
        """What two chains share that a segment serves."""
        units = tuple(x.shape for weights in inputs.networks for x in weights)
        read = bool(inputs.spec.control), inputs.spec.width, inputs.spec.unit is None
        return length, inputs.z.shape, inputs.z.dtype, units, *read

    def bind(self, inputs: Inputs) -> None:
        """Take a chain's tensors."""
        self.inputs, self.reader = inputs, Reader(inputs.spec, inputs.levels, inputs.z)
        for tower, networks in zip(self.towers, inputs.towers(), strict=True):
            tower.bind(networks)

    def release(self) -> None:
        """Let go of the chain's tensors."""
        for tower in self.towers:
            tower.release()
        del self.inputs, self.reader, self.dw, self.dt, self.spans

    def _cut(self, control: bool) -> list[tuple[Tensor, ...]]:
        """Each step's z, next z, h, and where there is a control, its u, r and q."""
        columns = [self.points[:-1], self.points[1:], self.h]
        if control:
            columns += [self.u, self.u if self.r is None else self.r]
            columns.append(self.u if self.q is None else self.q)
        return list(zip(*(x.unbind(0) for x in columns), strict=True))

    def run(self, start: Tensor, first: int, last: int) -> Tensor:
        """Solve from `start` at point `first` to point `last`; the state there."""
        inputs = self.inputs
        self.dt, self.dw = inputs.dt[first:last], inputs.draw(first, last)
        shifts = [inputs.drift_shift[None]]
        if inputs.shifts is not None:
            shifts.append(inputs.shifts[first:last] if len(inputs.shifts) > 1 else inputs.shifts)
        for tower in self.towers:
            own, shifts = shifts[: len(tower.weights)], shifts[len(tower.weights) :]
            tower.begin(own, last - first)
        self.points[0] = start
        self.spans = self.dt.unbind(0)
        moves = zip(self._steps, self.spans, self.dw.unbind(0), strict=False)
        for k, (views, span, move) in enumerate(moves):
            self._step(k, span, move, *views)
        return self.points[last - first]

    def _step(
        self, k: int, span: Tensor, move: Tensor, z: Tensor, to: Tensor, h: Tensor, *control: Tensor
    ) -> None:
        for tower in self.towers:
            tower.step(k)
        g = self.reader.g
        if g is None:
            bend = self.reader.bend(z)
            self.reader.correct(h, bend)
            g = bend.g
        scale = g
        if control:
            u, r, q = control
            self.reader.control(u, h, g, None if self.q is None else q)
            h.addcmul_(u, g)
            if self.r is not None:
                scale = self.reader.width(r, g)
        torch.addcmul(z, move, scale, out=to).addcmul_(h, span)

    def energy(self) -> Tensor:
        """1/2 sum |u|^2 dt of each row, over the steps last run."""
        each = self.u[: len(self.dt)].square().sum(2)
        return 0.5 * (each * self.dt[..., 0]).sum(0)

    def width_kl(self) -> Tensor:
        """sum(1/2 (r^2 - 1) - log r) of each row, over the steps last run."""
        if self.r is None:
            return self.points.new_zeros(())
        r = self.r[: len(self.dt)]
        spent = (0.5 * (r.square() - 1) - r.log()).sum(2)
        return (spent * (self.dt[..., 0] > 0)).sum(0)


class SegmentBack:
    """Carries the gradients back through segments, the last one first."""

    def __init__(self, segment: Segment) -> None:
        self.segment, points = segment, segment.points
        a_step = segment.towers[0].before[0].whole[0].numel()
        self.chunk = max(1, min(len(points) - 1, _GATHERED // a_step))
        self.points = torch.empty_like(points)  # of the loss by the states
        self._grads = self.points.unbind(0)
        self.towers = [
            TowerBack(tower, self.chunk, self._grads, at == 0)
            for at, tower in enumerate(segment.towers)
        ]
        outs = [out for tower in self.towers for out in tower.out.parts]
        self.for_h, self.for_raw = outs[0], outs[-1]
        size = points.shape[2]
        self.for_u, self.for_r = self.for_raw[..., :size], self.for_raw[..., size:]
        self._places = list(zip(self.for_h.unbind(0), self.for_u.unbind(0), strict=True))
        steps = zip(*(tower.calls for tower in self.towers), strict=True)
        self._calls = [[call for calls in step for call in calls] for step in steps]

    def begin(self, grad_energy: Tensor, grad_width: Tensor) -> None:
        """Take the tensors that the segment is bound to; their gradients are 0."""
        inputs = self.segment.inputs
        self.grad_energy, self.grad_width = grad_energy[:, None], grad_width[:, None]
        for tower in self.towers:
            tower.begin()
        self.reader = ReaderBack(self.segment.reader)
        self.carry = torch.zeros_like(self.points[0])
        self.drift_shift = torch.zeros_like(inputs.drift_shift)
        self.shifts = None if inputs.shifts is None else self.carry.new_empty(inputs.shifts.shape)
        if self.shifts is not None and len(self.shifts) == 1:
            self.shifts.zero_()

    def run(self, first: int, last: int, places: list[int], grads: Tensor) -> None:
        """Back from point `last` to `first`; `grads` are the loss's own at some `places`."""
        count = last - first
        self._own = dict(zip(places, grads.unbind(0), strict=True))
        self._grads[count].copy_(self.carry)
        if count in self._own:
            self._grads[count].add_(self._own[count])
        for begin in range((count - 1) // self.chunk * self.chunk, -1, -self.chunk):
            end = min(count, begin + self.chunk)
            self._chunk(begin, end)
            self._gather(first, begin, end)
        self.carry.copy_(self.points[0])

    def _chunk(self, begin: int, end: int) -> None:
        segment, here = self.segment, slice(begin, end)
        made = self._control_chunk(here) if segment.inputs.spec.control else []
        control = list(zip(*(x.unbind(0) for x in made), strict=True)) or [()] * (end - begin)
        for k in range(end - 1, begin - 1, -1):
            self._step(k, k - begin, segment.spans[k], control[k - begin])

    def _control_chunk(self, here: slice) -> list[Tensor]:
        """The KL's gradients of u and r in place of the outputs'; u's bend and r's slope."""
        segment, spans, count = self.segment, self.segment.dt[here], here.stop - here.start
        spec, u = segment.inputs.spec, segment.u[here]
        for_u, for_r = self.for_u[:count], self.for_r[:count]
        torch.mul(u, spans * self.grad_energy, out=for_u)
        made = [] if spec.bound is None else [1 - (u / spec.bound).square_()]
        if segment.r is None:
            return made
        r = segment.r[here]
        torch.mul(r - 1 / r, (spans > 0) * self.grad_width, out=for_r)
        made += [for_r, r * (1 - r), segment.dw[here]]
        return made

    def _step(self, k: int, place: int, span: Tensor, control: Sequence[Tensor]) -> None:
        segment, spec = self.segment, self.segment.inputs.spec
        into, grad = self._grads[k], self._grads[k + 1]
        for_h, for_u = self._places[place]
        bend, g = None, segment.reader.g
        if g is None:
            bend = segment.reader.bend(segment.points[k])
            g = bend.g
        torch.mul(grad, span, out=for_h)
        if spec.control:
            for_u.addcmul_(for_h, g)
            if spec.bound is not None:
                for_u.mul_(control[0])
            self.reader.motion(for_u, for_h, g)
            if segment.r is not None:
                for_r, slope, move = control[-3:]
                for_r.addcmul_(grad * g, move).mul_(slope)
        for call in self._calls[k]:
            call()
        if bend is not None:
            for_g = self._for_g(slice(k, k + 1), slice(place, place + 1), g)[0]
            self.reader.state(for_g, for_h, bend, into)
        if k in self._own:
            into.add_(self._own[k])

    def _for_g(self, here: slice, places: slice, g: Tensor) -> Tensor:
        """g's gradient of each step, (steps, rows, d)."""
        segment, spec = self.segment, self.segment.inputs.spec
        move = segment.dw[here]
        if segment.r is not None:
            move = move * segment.r[here]
        if spec.control:
            move = torch.addcmul(move, segment.u[here], segment.dt[here])
        total = self.points[here.start + 1 : here.stop + 1] * move
        if spec.unit is None:
            return total
        if segment.q is not None:
            total.addcmul_(self.for_u[places], segment.q[here], value=-1 / spec.unit)
        if segment.r is not None:
            total.addcdiv_(self.for_r[places], g, value=-1)
        return total

    def _gather(self, first: int, begin: int, end: int) -> None:
        """Add what the steps of a chunk leave to the gradients of what they share."""
        segment, count = self.segment, end - begin
        for tower in self.towers:
            tower.gather(segment.points[begin:end])
        grads = [part[:count] for tower in self.towers for part in tower.grads[0].parts]
        self.drift_shift += grads[0].sum(0)
        if self.shifts is not None and len(self.shifts) > 1:
            self.shifts[first + begin : first + end] = grads[1]
        elif self.shifts is not None:
            self.shifts += grads[1].sum(0)
        if segment.reader.g is not None:
            each = self._for_g(slice(begin, end), slice(0, count), segment.reader.g)
            self.reader.levels[0] += each.sum(0)

    def end(self) -> list[Tensor | None]:
        """The gradients, in the order in which the operator is given its tensors."""
        pairs = zip(self.reader.levels, self.segment.inputs.levels, strict=True)
        levels: list[Tensor | None] = [grad.sum_to_size(x.shape) for grad, x in pairs]
        weights = [x for tower in self.towers for x in tower.end()]
        slope = [None] if len(levels) == 1 else []
        made = [self.carry, self.drift_shift, *levels, *slope, self.shifts, None, *weights]
        del self.reader, self.carry, self.drift_shift, self.shifts, self._own
        del self.grad_energy, self.grad_width
        return made
