"""em_trajectory with a backward pass written by hand, for the CPU.

Where autograd forms a weight gradient a step at a time, this one gathers a few hundred rows of
several steps in one matrix product, while they are still in the cache. The loops allocate nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdevid_kernels.em_trajectory import reference
from sdevid_kernels.em_trajectory.reference import (
    WIDTH_START,
    Diffusion,
    Network,
    Posterior,
    Trajectory,
    settled,
)

_GATHERED = 512  # rows in one product of a weight gradient
_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.grad_input


class Spec(NamedTuple):
    """What is no tensor: how many weights each network has, and how the control is read."""

    drift: int
    control: int
    bound: float | None
    width: bool


class Tower:
    """A network over a solve. Weights are laid out (in, out), which torch.addmm takes quicker."""

    def __init__(self, weights: tuple[Tensor, ...], like: Tensor, steps: int) -> None:
        self.first = weights[0]
        self.first_t = weights[0].t().contiguous()
        self.weights, self.biases = weights[1::2], weights[2::2]
        self.turned = [weight.t().contiguous() for weight in self.weights]
        rows = len(like)
        widths = [weight.shape[1] for weight in self.weights]  # of the hidden layers
        self.before = [like.new_empty(steps, rows, width) for width in widths]
        self.value = [torch.empty_like(x) for x in self.before]
        self.steps = list(zip(*(x.unbind(0) for x in self.before), strict=True))
        self.values = list(zip(*(x.unbind(0) for x in self.value), strict=True))

    def forward(self, k: int, z: Tensor, shift: Tensor, out: Tensor) -> Tensor:
        """Outputs of step `k` at `z`, keeping what lies between."""
        before, value = self.steps[k], self.values[k]
        torch.addmm(shift, z, self.first_t, out=before[0])
        for layer, bias in enumerate(self.biases[:-1]):
            _silu(before[layer], out=value[layer])
            torch.addmm(bias, value[layer], self.turned[layer], out=before[layer + 1])
        _silu(before[-1], out=value[-1])
        return torch.addmm(self.biases[-1], value[-1], self.turned[-1], out=out)


class TowerBack:
    """A network's gradients, gathered `chunk` steps at a time."""

    def __init__(self, tower: Tower, outputs: int, chunk: int) -> None:
        self.tower = tower
        like = tower.before[0]
        rows = like.shape[1]
        self.grads = [x.new_empty(chunk, *x.shape[1:]) for x in tower.before]
        self.out = like.new_empty(chunk, rows, outputs)
        self.steps = list(zip(*(x.unbind(0) for x in self.grads), strict=True))
        self.outs = self.out.unbind(0)
        self.ones = like.new_ones(chunk * rows)
        self.first = torch.zeros_like(tower.first)
        self.weights = [torch.zeros_like(weight) for weight in tower.weights]
        self.biases = [torch.zeros_like(bias) for bias in tower.biases]

    def step(self, k: int, place: int, into: Tensor) -> None:
        """Add step `k`'s share to the state's gradient `into`; `outs[place]` holds the outputs'."""
        grad, before = self.outs[place], self.tower.steps[k]
        for layer in range(len(before) - 1, -1, -1):
            at = self.steps[place][layer]
            torch.mm(grad, self.tower.weights[layer], out=at)
            grad = _silu_backward(at, before[layer], grad_input=at)
        into.addmm_(grad, self.tower.first)

    def gather(self, first: int, states: Tensor) -> None:
        """Add the weight gradients of the steps from `first` on, which started at `states`."""
        count = len(states)
        ones = self.ones[: count * states.shape[1]]
        flat = [x[:count].flatten(0, 1) for x in (*self.grads, self.out)]
        values = [x[first : first + count].flatten(0, 1) for x in self.tower.value]
        self.first.addmm_(flat[0].t(), states.flatten(0, 1))
        for layer, (grad, value) in enumerate(zip(flat[1:], values, strict=True)):
            self.weights[layer].addmm_(grad.t(), value)
            self.biases[layer].addmv_(grad.t(), ones)

    def made(self) -> list[Tensor]:
        """In the order in which the weights were given."""
        behind = zip(self.weights, self.biases, strict=True)
        return [self.first, *(tensor for pair in behind for tensor in pair)]


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: Spec,
        z: Tensor,
        drift_shift: Tensor,
        diffusion: Tensor,
        shifts: Tensor | None,
        dt: Tensor,
        dw: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        walk = Walk(spec, z, diffusion, dt, dw, weights)
        states = walk.forward(z, drift_shift, shifts)
        ctx.walk = walk
        ctx.save_for_backward(states)  # and not in `walk`: an output its context keeps is not freed
        return states, walk.energy(), walk.width_kl()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor, grad_energy: Tensor, grad_width: Tensor
    ) -> tuple[Tensor | None, ...]:
        (states,) = ctx.saved_tensors
        back = Back(ctx.walk, states, grad_states, grad_energy, grad_width)
        back.run()
        control = [] if back.control is None else back.control.made()
        start, g = back.grad_states[0], back.grad_diffusion.sum_to_size(ctx.walk.diffusion.shape)
        shifts = (back.grad_drift_shift, g, back.grad_shifts)
        return None, start, *shifts, None, None, *back.drift.made(), *control


class Walk:
    """A forward pass and what it keeps."""

    def __init__(
        self,
        spec: Spec,
        z: Tensor,
        diffusion: Tensor,
        dt: Tensor,
        dw: Tensor,
        weights: tuple[Tensor, ...],
    ) -> None:
        self.bound, self.diffusion, self.dt, self.dw = spec.bound, diffusion, dt[:, :, None], dw
        steps = len(dt)
        self.drift = Tower(weights[: spec.drift], z, steps)
        self.control = Tower(weights[spec.drift :], z, steps) if spec.control else None
        self.raw = z.new_empty(steps, len(z), (1 + spec.width) * z.shape[1] if spec.control else 0)
        self.u = self.raw[..., : z.shape[1]]
        self.r = self.raw[..., z.shape[1] :] if spec.width else None  # once read

    def forward(self, z: Tensor, drift_shift: Tensor, shifts: Tensor | None) -> Tensor:
        """States at every point."""
        steps, rows, size = self.dw.shape
        states = z.new_empty(steps + 1, rows, size)
        states[0] = z
        points, g, h = states.unbind(0), self.diffusion, torch.empty_like(z)
        spans, moves, raws = self.dt.unbind(0), self.dw.unbind(0), self.raw.unbind(0)
        us, seen = self.u.unbind(0), [] if shifts is None else shifts.unbind(0)
        rs = None if self.r is None else self.r.unbind(0)
        for k in range(steps):
            z, after = points[k], points[k + 1]
            self.drift.forward(k, z, drift_shift, h)
            scale = g
            if self.control is not None:
                self.control.forward(k, z, seen[k], raws[k])
                if self.bound is not None:
                    us[k].div_(self.bound).tanh_().mul_(self.bound)
                if rs is not None:
                    scale = rs[k].add_(WIDTH_START).sigmoid_() * g
                h.addcmul_(us[k], g)
            torch.addcmul(z, moves[k], scale, out=after).addcmul_(h, spans[k])
        return states

    def energy(self) -> Tensor:
        """1/2 sum |u|^2 dt of each row."""
        return 0.5 * (self.u.square().sum(2) * self.dt[..., 0]).sum(0)

    def width_kl(self) -> Tensor:
        """sum(1/2 (r^2 - 1) - log r) of each row."""
        if self.r is None:
            return self.dt.new_zeros(self.dt.shape[1])
        spent = (0.5 * (self.r.square() - 1) - self.r.log()).sum(2)
        return (spent * (self.dt[..., 0] > 0)).sum(0)


class Back:
    """A backward pass over a walk."""

    def __init__(
        self,
        walk: Walk,
        states: Tensor,
        grad_states: Tensor,
        grad_energy: Tensor,
        grad_width: Tensor,
    ) -> None:
        self.walk, self.states = walk, states
        self.grad_energy, self.grad_width = grad_energy[:, None], grad_width[:, None]
        self.grad_states = grad_states.clone(memory_format=torch.contiguous_format)
        steps, rows, size = walk.dw.shape
        self.chunk = min(steps, max(1, _GATHERED // rows))
        self.drift = TowerBack(walk.drift, size, self.chunk)
        self.grad_drift_shift = torch.zeros_like(walk.drift.before[0][0])
        self.grad_diffusion = torch.zeros_like(states[0])
        self.control: TowerBack | None = None
        self.grad_shifts: Tensor | None = None
        if walk.control is not None:
            self.control = TowerBack(walk.control, walk.raw.shape[2], self.chunk)
            self.grad_shifts = torch.empty_like(walk.control.before[0])

    def run(self) -> None:
        """Carry the gradients from the last state to the first."""
        steps, points = len(self.walk.dt), self.grad_states.unbind(0)
        for last in range(steps, 0, -self.chunk):
            first = max(0, last - self.chunk)
            count = last - first
            self._carry(first, last, points)
            self.drift.gather(first, self.states[first:last])
            for place in range(count):
                self.grad_drift_shift += self.drift.steps[place][0]
            moved = self.walk.dw[first:last]
            if self.control is not None and self.grad_shifts is not None:
                self.control.gather(first, self.states[first:last])
                self.grad_shifts[first:last] = self.control.grads[0][:count]
                if self.walk.r is not None:
                    moved = moved * self.walk.r[first:last]
                moves = self.drift.out[:count] * self.walk.u[first:last]
                self.grad_diffusion += moves.sum(0)
            self.grad_diffusion += (self.grad_states[first + 1 : last + 1] * moved).sum(0)

    def _carry(self, first: int, last: int, points: tuple[Tensor, ...]) -> None:
        walk = self.walk
        spans = walk.dt[first:last].unbind(0)
        for_u, for_r, bend, slope = self._control_chunk(first, last)
        noises = (walk.dw[first:last] * walk.diffusion).unbind(0) if slope is not None else ()
        for place in range(last - first - 1, -1, -1):
            k = first + place
            grad, into = points[k + 1], points[k]
            out = torch.mul(grad, spans[place], out=self.drift.outs[place])
            into.add_(grad)
            self.drift.step(k, place, into)
            if self.control is None:
                continue
            for_u[place].addcmul_(out, walk.diffusion)
            if bend is not None:
                for_u[place].mul_(bend[place])
            if slope is not None:
                for_r[place].addcmul_(grad, noises[place]).mul_(slope[place])
            self.control.step(k, place, into)

    def _control_chunk(self, first: int, last: int) -> tuple[Any, Any, Any, Any]:
        """The KL's gradients of u and r in place of the outputs', and their slopes, by step."""
        walk = self.walk
        if self.control is None:
            return (), (), None, None
        u, dt, size = walk.u[first:last], walk.dt[first:last], walk.u.shape[2]
        out = self.control.out[: last - first]
        for_u, for_r = out[..., :size], out[..., size:]
        torch.mul(u, dt * self.grad_energy, out=for_u)
        bend = slope = None
        if walk.bound is not None:
            bend = (1 - (u / walk.bound).square()).unbind(0)
        if walk.r is not None:
            r = walk.r[first:last]
            torch.mul(r - 1 / r, (dt > 0) * self.grad_width, out=for_r)
            slope = (r * (1 - r)).unbind(0)
        return for_u.unbind(0), for_r.unbind(0), bend, slope


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    dw: Tensor,
    saved: Sequence[int] | None = None,
) -> Trajectory:
    """The reference's chain, differentiable once; `dt` and `dw` get no gradient.

    Autograd's own where g depends on the state or the control is read in latent units.
    """
    diffusion = settled(diffusion)
    in_units = posterior is not None and posterior.unit is not None
    if in_units or not isinstance(diffusion, Tensor):
        given = (z, drift, drift_shift, diffusion, posterior, dt, dw, saved)
        return reference.em_trajectory(*given)
    weights, shifts = _flat(drift), None
    spec = Spec(len(weights), 0, None, False)
    if posterior is not None:
        more = _flat(posterior.network)
        spec = Spec(len(weights), len(more), posterior.bound, posterior.width)
        weights, shifts = weights + more, posterior.shifts
    made = _Chain.apply(  # type: ignore[no-untyped-call]
        spec, z, drift_shift, diffusion, shifts, dt, dw, *weights
    )
    chain = Trajectory(*made)
    return chain if saved is None else chain._replace(states=chain.states[list(saved)])


def _flat(network: Network) -> list[Tensor]:
    layers = [*network.hidden, network.last]
    return [network.first, *(tensor for layer in layers for tensor in layer)]
