"""em_trajectory with a backward pass written by hand, for the CPU.

What autograd does a step at a time is gathered over all steps where it can be: a layer's weight
gradient is one matrix product over steps and rows; noise, KL and their gradients are one operation
each. The first layers of drift and control are one product. The loop allocates nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdevid_kernels.em_trajectory.reference import WIDTH_START, Network, Posterior, Trajectory

_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.grad_input


class Tower(NamedTuple):
    """A network's layers behind its first: (weight, bias) from first to last."""

    layers: list[tuple[Tensor, Tensor]]

    def forward(self, x: Tensor, before: list[Tensor], after: list[Tensor], out: Tensor) -> None:
        """`out` from the first SiLU's values `x`, keeping what lies between."""
        *hidden, (weight, bias) = self.layers
        for (inner, shift), pre, value in zip(hidden, before, after, strict=True):
            torch.addmm(shift, x, inner, out=pre)
            x = _silu(pre, out=value)
        torch.addmm(bias, x, weight, out=out)

    def backward(self, grad: Tensor, before: list[Tensor], into: list[Tensor]) -> None:
        """Gradients of the pre-activations, first to last, from that of the outputs.

        `before` and `into` also hold the first layer's; its SiLU is left to the caller.
        """
        for layer in range(len(self.layers) - 1, -1, -1):
            torch.mm(grad, self.layers[layer][0].t(), out=into[layer])
            grad = into[layer]
            if layer:
                _silu_backward(grad, before[layer], grad_input=grad)


@dataclass
class Kept:
    """One tower's tensors over all steps, (steps, rows, width); entry 0 is the first layer's."""

    tower: Tower
    before: list[Tensor]
    after: list[Tensor]
    out: Tensor

    def steps(self) -> list[tuple[list[Tensor], list[Tensor], Tensor]]:
        """The same, a step at a time."""
        before = list(zip(*(x.unbind(0) for x in self.before), strict=True))
        after = list(zip(*(x.unbind(0) for x in self.after), strict=True))
        return [(list(b), list(a), out) for b, a, out in zip(before, after, self.out, strict=True)]

    def weight_gradients(self, grads: list[Tensor], grad_out: Tensor) -> list[Tensor]:
        """Of every layer behind the first: weight (out, in) and bias, by turns."""
        made = []
        for grad, x in zip([*grads[1:], grad_out], self.after, strict=True):
            flat = grad.flatten(0, 1)
            made += [torch.mm(flat.t(), x.flatten(0, 1)), flat.sum(0)]
        return made


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: tuple[int, int, float | None, bool],
        z: Tensor,
        drift_shift: Tensor,
        diffusion: Tensor,
        shifts: Tensor | None,
        dt: Tensor,
        dw: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        walk = Walk(spec, z, drift_shift, diffusion, shifts, dt, dw, weights)
        walk.forward(z)
        states, energy, width_kl = walk.states, walk.energy(), walk.width_kl()
        ctx.walk, ctx.shape = walk, diffusion.shape
        ctx.save_for_backward(states)
        del walk.states  # an output kept by its own context would never be freed
        return states, energy, width_kl

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_states: Tensor, grad_energy: Tensor, grad_width: Tensor
    ) -> tuple[Tensor | None, ...]:
        walk = ctx.walk
        (walk.states,) = ctx.saved_tensors
        back = Back(walk, grad_states, grad_energy, grad_width)
        back.run()
        split = walk.first_weights[0].shape[0]
        pre = back.grad_first
        flat = torch.mm(pre.flatten(0, 1).t(), walk.states[:-1].flatten(0, 1))
        for_drift = [flat[:split], *walk.drift.weight_gradients(*back.for_drift)]
        for_control: list[Tensor] = []
        if walk.control is not None and back.for_control is not None:
            for_control = [flat[split:], *walk.control.weight_gradients(*back.for_control)]
        del walk.states
        return (
            None,
            back.grad_states[0],
            pre[..., :split].sum(0),
            back.diffusion_gradient().sum_to_size(ctx.shape),
            pre[..., split:] if walk.control is not None else None,
            None,
            None,
            *for_drift,
            *for_control,
        )


class Walk:
    """A forward pass and what it keeps."""

    def __init__(
        self,
        spec: tuple[int, int, float | None, bool],
        z: Tensor,
        drift_shift: Tensor,
        diffusion: Tensor,
        shifts: Tensor | None,
        dt: Tensor,
        dw: Tensor,
        weights: tuple[Tensor, ...],
    ) -> None:
        drift_count, control_count, self.bound, self.has_width = spec
        steps, rows = dt.shape
        self.diffusion, self.dt, self.dw = diffusion, dt[:, :, None], dw
        groups = [weights[:drift_count], weights[drift_count:]]
        self.first_weights = [group[0] for group in groups if group]
        first = torch.cat(self.first_weights)
        self.first, self.first_t = first, first.t().contiguous()
        self.pre = z.new_empty(steps, rows, len(first))
        split = len(self.first_weights[0])
        self.pre[..., :split] = drift_shift
        if shifts is not None:
            self.pre[..., split:] = shifts
        self.value = torch.empty_like(self.pre)
        self.states = z.new_empty(steps + 1, *z.shape)
        self.noise = dw * diffusion
        self.drift = self._keep(weights[1:drift_count], slice(0, split))
        self.control = None
        if control_count:
            self.control = self._keep(weights[drift_count + 1 :], slice(split, None))
        self.u, self.r = self._room_for_control()

    def _keep(self, weights: tuple[Tensor, ...], columns: slice) -> Kept:
        # torch.addmm is quicker on weights laid out (in, out)
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        tower = Tower([(weight.t().contiguous(), bias) for weight, bias in pairs])
        widths = [len(bias) for _, bias in pairs]
        before = [self.pre.new_empty(*self.pre.shape[:2], width) for width in widths[:-1]]
        after = [torch.empty_like(x) for x in before]
        out = self.pre.new_empty(*self.pre.shape[:2], widths[-1])
        first, value = self.pre[..., columns], self.value[..., columns]
        return Kept(tower, [first, *before], [value, *after], out)

    def _room_for_control(self) -> tuple[Tensor | None, Tensor | None]:
        if self.control is None:
            return None, None
        raw, size = self.control.out, self.states.shape[2]
        u = raw[..., :size]
        if self.bound is not None:
            u = torch.empty_like(u, memory_format=torch.contiguous_format)
        return u, torch.empty_like(
            u, memory_format=torch.contiguous_format
        ) if self.has_width else None

    def forward(self, z: Tensor) -> None:
        """Fill `states` and everything kept."""
        states, size = self.states.unbind(0), z.shape[1]
        states[0].copy_(z)
        pres, values = self.pre.unbind(0), self.value.unbind(0)
        spans, noises = self.dt.unbind(0), self.noise.unbind(0)
        drifts = self.drift.steps()
        controls = self.control.steps() if self.control else None
        us = self.u.unbind(0) if self.u is not None else None
        rs = self.r.unbind(0) if self.r is not None else None
        for k in range(len(spans)):
            z, after = states[k], states[k + 1]
            _silu(pres[k].addmm_(z, self.first_t), out=values[k])
            before, value, h = drifts[k]
            self.drift.tower.forward(value[0], before[1:], value[1:], h)
            torch.add(z, noises[k], out=after)
            if controls is not None and us is not None and self.control is not None:
                before, value, raw = controls[k]
                self.control.tower.forward(value[0], before[1:], value[1:], raw)
                if self.bound is not None:
                    torch.div(raw[:, :size], self.bound, out=us[k])
                    us[k].tanh_().mul_(self.bound)
                if rs is not None:
                    torch.add(raw[:, size:], WIDTH_START, out=rs[k]).sigmoid_()
                    torch.addcmul(z, noises[k], rs[k], out=after)
                h = torch.addcmul(h, us[k], self.diffusion, out=h)
            after.addcmul_(h, spans[k])

    def energy(self) -> Tensor:
        """1/2 sum |u|^2 dt of each row."""
        if self.u is None:
            return self.states.new_zeros(self.states.shape[1])
        return 0.5 * torch.einsum("srd,srd,sr->r", self.u, self.u, self.dt[..., 0])

    def width_kl(self) -> Tensor:
        """sum(1/2 (r^2 - 1) - log r) of each row."""
        if self.r is None:
            return self.states.new_zeros(self.states.shape[1])
        spent = (0.5 * (self.r.square() - 1) - self.r.log()).sum(2)
        return (spent * (self.dt[..., 0] > 0)).sum(0)


class Back:
    """A backward pass over a walk."""

    def __init__(
        self, walk: Walk, grad_states: Tensor, grad_energy: Tensor, grad_width: Tensor
    ) -> None:
        self.walk = walk
        self.grad_states = grad_states.clone(memory_format=torch.contiguous_format)
        self.grad_first = torch.empty_like(walk.pre)
        split = len(walk.first_weights[0])
        self.grad_drift = torch.empty_like(walk.drift.out)
        inner = [torch.empty_like(x) for x in walk.drift.before[1:]]
        self.for_drift = ([self.grad_first[..., :split], *inner], self.grad_drift)
        self.for_control: tuple[list[Tensor], Tensor] | None = None
        if walk.control is None or walk.u is None:
            return
        size = walk.u.shape[2]
        grad_out = torch.empty_like(walk.control.out)
        torch.mul(walk.u, walk.dt * grad_energy[:, None], out=grad_out[..., :size])
        if walk.r is not None:
            some = (walk.dt > 0) * grad_width[:, None]
            torch.mul(walk.r - 1 / walk.r, some, out=grad_out[..., size:])
        inner = [torch.empty_like(x) for x in walk.control.before[1:]]
        self.for_control = ([self.grad_first[..., split:], *inner], grad_out)

    def run(self) -> None:
        """Carry the gradients from the last state to the first."""
        walk = self.walk
        grads, firsts = self.grad_states.unbind(0), self.grad_first.unbind(0)
        spans, pres = walk.dt.unbind(0), walk.pre.unbind(0)
        outs = self.grad_drift.unbind(0)
        into = list(zip(*(x.unbind(0) for x in self.for_drift[0]), strict=True))
        before = list(zip(*(x.unbind(0) for x in walk.drift.before), strict=True))
        control = self._control_steps() if self.for_control is not None else None
        for k in range(len(spans) - 1, -1, -1):
            grad, first = grads[k + 1], firsts[k]
            out = torch.mul(grad, spans[k], out=outs[k])
            walk.drift.tower.backward(out, list(before[k]), list(into[k]))
            if control is not None:
                self._through_control(grad, out, *control[k])
            _silu_backward(first, pres[k], grad_input=first)
            grads[k].add_(grad).addmm_(first, walk.first)

    def _control_steps(self) -> list[tuple[Any, ...]]:
        walk, made = self.walk, self.for_control
        assert walk.control is not None
        assert made is not None
        assert walk.u is not None
        size = walk.u.shape[2]
        bend = None if walk.bound is None else 1 - (walk.u / walk.bound).square()
        slope = None if walk.r is None else walk.r * (1 - walk.r)
        into = list(zip(*(x.unbind(0) for x in made[0]), strict=True))
        before = list(zip(*(x.unbind(0) for x in walk.control.before), strict=True))
        return [
            (
                made[1][k],
                made[1][k, :, :size],
                made[1][k, :, size:],
                None if bend is None else bend[k],
                None if slope is None else slope[k],
                walk.noise[k],
                list(before[k]),
                list(into[k]),
            )
            for k in range(len(walk.dt))
        ]

    def _through_control(
        self,
        grad: Tensor,
        grad_total: Tensor,
        out: Tensor,
        for_u: Tensor,
        for_r: Tensor,
        bend: Tensor | None,
        slope: Tensor | None,
        noise: Tensor,
        before: list[Tensor],
        into: list[Tensor],
    ) -> None:
        walk = self.walk
        assert walk.control is not None
        for_u.addcmul_(grad_total, walk.diffusion)
        if bend is not None:
            for_u.mul_(bend)
        if slope is not None:
            for_r.addcmul_(grad, noise).mul_(slope)
        walk.control.tower.backward(out, before, into)

    def diffusion_gradient(self) -> Tensor:
        """Of g, for every row."""
        walk = self.walk
        moved = walk.dw if walk.r is None else walk.dw * walk.r
        made = torch.einsum("srd,srd->rd", self.grad_states[1:], moved)
        if walk.u is not None:
            made = made + torch.einsum("srd,srd->rd", self.grad_drift, walk.u)
        return made


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor,
    posterior: Posterior | None,
    dt: Tensor,
    dw: Tensor,
) -> Trajectory:
    """The reference's chain, differentiable once; `dt` and `dw` get no gradient."""
    weights = _flat(drift)
    spec: tuple[int, int, float | None, bool] = (len(weights), 0, None, False)
    shifts = None
    if posterior is not None:
        more = _flat(posterior.network)
        spec = (len(weights), len(more), posterior.bound, posterior.width)
        weights, shifts = weights + more, posterior.shifts
    made = _Chain.apply(  # type: ignore[no-untyped-call]
        spec, z, drift_shift, diffusion, shifts, dt, dw, *weights
    )
    return Trajectory(*made)


def _flat(network: Network) -> list[Tensor]:
    layers = [*network.hidden, network.last]
    return [network.first, *(tensor for layer in layers for tensor in layer)]
