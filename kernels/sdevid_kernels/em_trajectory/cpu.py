"""em_trajectory on a CPU: one autograd function with its backward pass written out.

Forward keeps the states, the pre-activations and the hidden values of all steps; the first layers
of drift and control are one product. Backward carries the state's gradient through the steps, and
then takes each weight's gradient in one product over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdevid_kernels.em_step import reference as step
from sdevid_kernels.em_trajectory import reference
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior

_silu = torch.ops.aten.silu.out
_silu_backward = torch.ops.aten.silu_backward.grad_input


class ChainForm(NamedTuple):
    """What of a chain is no tensor."""

    drift: int  # how many weights the drift has; the control's follow
    reading: reference.Reading | None  # None: there is no control
    saved: Sequence[int]
    rest: tuple[float, float, bool] = (0.0, 0.0, False)  # floor, start, calculus of a Diffusion


class _Layers:
    """The networks' layers and what they leave behind, of `kept` steps."""

    def __init__(self, networks: list[list[Tensor]], z: Tensor, kept: int) -> None:
        self.networks, self.kept = networks, kept
        self.first = torch.cat([weights[0] for weights in networks])
        ends = [0, *accumulate(len(weights[0]) for weights in networks)]
        self.columns = [slice(a, b) for a, b in pairwise(ends)]
        shape = (kept, len(z))
        self.pre = z.new_empty(*shape, ends[-1])
        self.value, self.room = torch.empty_like(self.pre), z.new_empty(len(z), ends[-1])
        self.inner = [
            [(z.new_empty(*shape, len(w)), z.new_empty(*shape, len(w))) for w in weights[1:-2:2]]
            for weights in networks
        ]
        self.outs = [z.new_empty(*shape, len(weights[-2])) for weights in networks]

    def shift(self, shifts: list[Tensor]) -> None:
        """Set the first layers' shifts, each (steps or 1, rows, units)."""
        for columns, shift in zip(self.columns, shifts, strict=True):
            self.pre[..., columns] = shift

    def run(self, z: Tensor, at: int) -> list[Tensor]:
        """Compute each network's outputs at the states `z`; `at` is the step's index."""
        pre, value = self.pre[at], self.value[at]
        pre.addmm_(z, self.first.t())
        _silu(pre, out=value)
        for n, weights in enumerate(self.networks):
            x = value[:, self.columns[n]]
            pairs = list(zip(weights[1::2], weights[2::2], strict=True))
            for (weight, bias), (before, after) in zip(pairs[:-1], self.inner[n], strict=True):
                torch.addmm(bias, x, weight.t(), out=before[at])
                x = _silu(before[at], out=after[at])
            torch.addmm(pairs[-1][1], x, pairs[-1][0].t(), out=self.outs[n][at])
        return [out[at] for out in self.outs]

    def back(self, outs: list[Tensor], at: int, grad: Tensor) -> Tensor:
        """Add to `grad` the state's gradient through the outputs, whose gradients are `outs`.

        Overwrites pre-activations by their gradients.
        """
        for n, weights in enumerate(self.networks):
            up, weight = outs[n][at], weights[-2]
            for layer in range(len(self.inner[n]) - 1, -1, -1):
                pre = self.inner[n][layer][0][at]
                up = _silu_backward(up @ weight, pre, grad_input=pre)
                weight = weights[1 + 2 * layer]
            torch.mm(up, weight, out=self.room[:, self.columns[n]])
        pre = self.pre[at]
        _silu_backward(self.room, pre, grad_input=pre)
        return torch.addmm(grad, pre, self.first)

    def weight_grads(self, outs: list[Tensor], states: Tensor) -> list[Tensor]:
        """Compute the gradients of all weights, each in one product over the steps."""
        firsts = self.pre.flatten(0, 1).t() @ states.flatten(0, 1)
        grads = []
        for n, columns in enumerate(self.columns):
            grads.append(firsts[columns])
            ups = [up for up, _ in self.inner[n]] + [outs[n]]
            values = [self.value[..., columns]] + [value for _, value in self.inner[n]]
            for up, value in zip(ups, values, strict=True):
                flat = up.flatten(0, 1)
                grads += [flat.t() @ value.flatten(0, 1), flat.sum(0)]
        return grads


class _Solved(NamedTuple):
    """A solved chain and what its backward pass reads."""

    path: Tensor  # states, (points, rows, d)
    energy: Tensor
    width_kl: Tensor
    layers: _Layers
    h: Tensor  # the drift, (steps, rows, d)
    u: Any  # None without a control
    r: Any  # None without a width


def _solve(form: ChainForm, tensors: Sequence[Any], keep: bool) -> _Solved:
    z, drift_shift, level, slope, curve, shifts, dt, dw, *weights = tensors
    networks = [weights[: form.drift], weights[form.drift :]][: 1 if form.reading is None else 2]
    layers = _Layers(networks, z, len(dt) if keep else 1)
    diffusion = Diffusion(level, slope, curve, *form.rest) if slope is not None else level
    shifts_of = [drift_shift[None], *([] if shifts is None else [shifts])]
    if keep:
        layers.shift(shifts_of)
    states, drifts, controls, widths = [z], list[Tensor](), list[Tensor](), list[Tensor]()
    energy, width_kl = z.new_zeros(len(z)), z.new_zeros(len(z))
    for k, (span, increment) in enumerate(zip(dt[..., None], dw, strict=True)):
        if not keep:
            layers.shift([x[k : k + 1] if len(x) > 1 else x for x in shifts_of])
        h, *raw = layers.run(z, k if keep else 0)
        g: Any = diffusion
        if isinstance(diffusion, Diffusion):
            g, bend = diffusion.with_slope(z)
            more = diffusion.correction(g, bend)
            h = h if more is None else h + more
            drifts.append(h)
        scale = g
        if form.reading is not None:
            u, r = form.reading(raw[0], h, g)
            h = torch.addcmul(h, g, u)
            controls.append(u)
            if r is not None:
                scale = r * g
                widths.append(r)
        z = torch.addcmul(torch.addcmul(z, h, span), scale, increment)
        states.append(z)
    us, rs = (torch.stack(parts) if parts else None for parts in (controls, widths))
    if us is not None:
        energy = step.control_energy(us, dt[..., None]).sum((0, 2))
    if rs is not None:
        width_kl = step.width_kl(rs, dt[..., None]).sum((0, 2))
    path, hs = torch.stack(states), torch.stack(drifts) if drifts else layers.outs[0]
    return _Solved(path, energy, width_kl, layers, hs, us, rs)


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: ChainForm, *tensors: Any) -> tuple[Tensor, Tensor, Tensor]:
        solved = _solve(form, tensors, any(ctx.needs_input_grad))
        ctx.form, ctx.solved = form, solved
        ctx.save_for_backward(*tensors)
        return solved.path[list(form.saved)], solved.energy, solved.width_kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        solved, ctx.solved = ctx.solved, None  # a second pass through the graph solves again
        solved = solved or _solve(ctx.form, ctx.saved_tensors, keep=True)
        return None, *_ChainBackward(ctx.form, ctx.saved_tensors, solved, *grads).run()


class _ChainBackward:
    """The gradients of a chain's tensors, from those of its states, energy and width's KL."""

    def __init__(self, form: ChainForm, tensors: Any, solved: _Solved, *grads: Tensor) -> None:
        for_states, for_u, for_r = grads
        self.form, self.layers, self.path = form, solved.layers, solved.path
        self.z, _, self.level, self.slope, self.curve, self.shifts, dt, self.dw, *_ = tensors
        self.dt, self.h, self.u, self.r = dt[..., None], solved.h, solved.u, solved.r
        self.own = dict(zip(self.form.saved, for_states, strict=True))
        self.outs = [torch.empty_like(out) for out in self.layers.outs]
        self.diffusion = Diffusion(self.level, self.slope, self.curve, *form.rest)
        self.ups = torch.empty_like(self.path)  # of each state, by all that follows
        if self.form.reading is None:
            return
        size, bound = self.z.shape[1], self.form.reading.bound
        self.bend = None if bound is None else 1 - (self.u / bound).square()
        self.base_u = self.u * self.dt * for_u[:, None]
        self.raw_u, self.raw_r = self.outs[1][..., :size], self.outs[1][..., size:]
        if self.r is not None:
            least = self.r.clamp(min=step.LEAST_WIDTH)
            self.base_r = (self.r - 1 / least) * (self.dt > 0) * for_r[:, None]
            self.rise_r = self.r * (1 - self.r)

    def run(self) -> list[Tensor | None]:
        steps, grad = len(self.dt), torch.zeros_like(self.z)
        levels = [torch.zeros_like(self.z) for _ in range(3)]  # of g's level, slope and curve
        for k in range(steps, -1, -1):
            grad = grad + self.own[k] if k in self.own else grad
            self.ups[k] = grad
            if k:
                grad = self._step(k - 1, grad, levels)
        if self.slope is None:
            g = self.level.expand_as(self.z)
            levels[0] = self._for_g(slice(0, steps), self.ups[1:], g).sum(0)
        layers = self.layers
        shifts = [layers.pre[..., columns] for columns in layers.columns]
        for_shifts = None
        if self.shifts is not None:
            for_shifts = shifts[1] if len(self.shifts) > 1 else shifts[1].sum(0, keepdim=True)
        return [
            self.ups[0],
            shifts[0].sum(0),
            levels[0].sum_to_size(self.level.shape),
            None if self.slope is None else levels[1].sum_to_size(self.slope.shape),
            None if self.curve is None else levels[2].sum_to_size(self.curve.shape),
            *(for_shifts, None, None),  # none of dt and dW
            *layers.weight_grads(self.outs, self.path[:-1]),
        ]

    def _step(self, k: int, up: Tensor, levels: list[Tensor]) -> Tensor:
        """Backward of step k: from `up` = dL/dz[k+1], return dL/dz[k]."""
        to_h, g = torch.mul(up, self.dt[k], out=self.outs[0][k]), self.level
        if self.slope is not None:
            g = self.diffusion.at(self.path[k])
        reading = self.form.reading
        if reading is not None:
            to_u = torch.addcmul(self.base_u[k], to_h, g)
            if self.bend is not None:
                to_u *= self.bend[k]
            if reading.unit is None:
                self.raw_u[k] = to_u
            else:
                to_u /= g
                torch.mul(to_u, reading.unit, out=self.raw_u[k])
                if reading.own:
                    to_h -= to_u
            if self.r is not None:
                to_r = torch.addcmul(self.base_r[k], up * g, self.dw[k])
                torch.mul(to_r, self.rise_r[k], out=self.raw_r[k])
        if self.slope is not None:
            up = up + self._bend(k, to_h, self._for_g(k, up, g), levels)
        return self.layers.back(self.outs, k, up)

    def _for_g(self, k: Any, up: Tensor, g: Tensor) -> Any:
        """Compute g's gradient at the steps `k` from those of the states after them."""
        reading, dw = self.form.reading, self.dw[k]
        if self.r is not None:
            dw = dw * self.r[k]
        if reading is None:
            return up * dw
        total = up * torch.addcmul(dw, self.u[k], self.dt[k])
        if reading.unit is None:
            return total
        motion = reading.unit * self.layers.outs[1][k][..., : self.z.shape[1]]
        if reading.own:
            motion -= self.h[k]
        total -= self.raw_u[k] * motion / (reading.unit * g)
        return total if self.r is None else total - self.raw_r[k] / g

    def _bend(self, k: int, to_h: Tensor, to_g: Tensor, levels: list[Tensor]) -> Any:
        """Compute the state's gradient through g; add those of g's level, slope and curve."""
        bend = torch.tanh(self.path[k])
        rise = torch.sigmoid(self.diffusion.raised(bend) + self.diffusion.start)
        flat, tilt = 1 - bend.square(), self.slope + 2 * self.curve * bend
        to_level = to_g * rise
        to_tilt: Any = 0.0
        to_bend: Any = 0.0
        if self.diffusion.stratonovich:  # h += 1/2 g rise tilt flat
            g = self.diffusion.at(self.path[k])
            half = 0.5 * to_h * rise
            to_level = to_level + half * tilt * flat * (rise + g * (1 - rise))
            to_tilt = half * g * flat
            to_bend = 2 * (to_tilt * self.curve - half * g * tilt * bend)
        levels[0] += to_level
        levels[1] += to_level * bend + to_tilt
        levels[2] += (to_level * bend + 2 * to_tilt) * bend
        return (to_bend + to_level * tilt) * flat


def em_trajectory(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    dw: Tensor,
    saved: Sequence[int] | None = None,
) -> reference.Trajectory:
    """Solve the reference's chain, differentiable once; `dt` and the noise get no gradient."""
    weights, diffusion = _flat(drift), reference.settled(diffusion)
    points = range(len(dt) + 1) if saved is None else saved
    form = ChainForm(len(weights), None, points)
    level, slope, curve, shifts = diffusion, None, None, None
    if isinstance(diffusion, Diffusion):
        level, slope, curve, form = *diffusion[:3], form._replace(rest=diffusion[3:])
    if posterior is not None:
        shifts, weights = posterior.shifts, weights + _flat(posterior.network)
        form = form._replace(reading=posterior.reading)
    tensors = (z, drift_shift, level, slope, curve, shifts, dt, dw)
    return reference.Trajectory(*_Chain.apply(form, *tensors, *weights))  # type: ignore[no-untyped-call]


def _flat(network: Network) -> list[Tensor]:
    layers = [*network.hidden, network.last]
    return [network.first, *(tensor for layer in layers for tensor in layer)]
