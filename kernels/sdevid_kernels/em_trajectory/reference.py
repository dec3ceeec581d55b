"""A whole Euler-Maruyama chain with SiLU networks as drift and control, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sdevid_kernels.em_step.reference import control_energy, em_step
from sdevid_kernels.em_step.reference import width_kl as narrowing

WIDTH_START = 3.0  # a raw output of 0 is a width of sigmoid(3) = 0.95


class Network(NamedTuple):
    """SiLU layers and a linear last one, as (weight (out, in), bias (out,)) from first to last.

    The first layer has no bias of its own: it is given a shift, which may differ between rows.
    """

    first: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...]
    last: tuple[Tensor, Tensor]

    def __call__(self, z: Tensor, shift: Tensor) -> Tensor:
        """Compute the outputs at states (rows, d); `shift` (rows, hidden) is the first layer's."""
        x = functional.silu(functional.linear(z, self.first) + shift)
        for weight, bias in self.hidden:
            x = functional.silu(functional.linear(x, weight, bias))
        return functional.linear(x, *self.last).to(z.dtype)  # 16 bits under autocast


class Diffusion(NamedTuple):
    """g = floor + softplus(level + start + slope tanh z + curve tanh^2 z), diagonal.

    A slope alone makes g rise or fall throughout; with a curve it may be least or greatest in
    between. With `stratonovich` the drift network is written in that calculus: 1/2 g dg/dz is
    added to it (Kloeden & Platen 1992, section 4.9). A plain tensor in place of a Diffusion is a
    constant g.
    """

    level: Float[Tensor, "rows *d"]  # of one row or all
    slope: Float[Tensor, "rows *d"] | None = None  # None: g does not depend on z
    curve: Float[Tensor, "rows *d"] | None = None  # given with a slope, and only then
    floor: float = 0.0
    start: float = 0.0
    stratonovich: bool = False

    def at(self, z: Tensor) -> Tensor:
        """Compute g at `z`."""
        if self.slope is None:
            return self._positive(self.level)
        return self._positive(self.raised(torch.tanh(z)))

    def with_slope(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute g at `z` and dg/dz; None where g does not depend on z."""
        if self.slope is None or self.curve is None:
            return self._positive(self.level), None
        bend = torch.tanh(z)
        level = self.raised(bend)
        rise = torch.sigmoid(level + self.start)
        tilt = self.slope + 2 * self.curve * bend
        return self._positive(level), rise * tilt * (1 - bend.square())

    def raised(self, bend: Tensor) -> Tensor:
        """Compute level + slope tanh z + curve tanh^2 z from `bend` = tanh z."""
        assert self.slope is not None
        assert self.curve is not None
        return self.level + (self.slope + self.curve * bend) * bend

    def correction(self, g: Tensor, slope: Tensor | None) -> Tensor | None:
        """Compute what makes the drift Ito's when added to it; None where it already is."""
        return 0.5 * g * slope if self.stratonovich and slope is not None else None

    def _positive(self, level: Tensor) -> Tensor:
        return self.floor + functional.softplus(level + self.start)


class Reading(NamedTuple):
    """How the control network's outputs are read beside the prior's drift h and diffusion g.

    Without a unit, u = bound tanh(output / bound) and r = sigmoid(output + 3). With one, the first
    outputs are a motion in latent units: motion = unit * output, less the drift h where `own`
    (they are then the posterior's whole drift), u = bound tanh(motion / (bound g)), and
    r = sigmoid(output + 3 + log(unit / g)). Without a bound, u is what tanh would bend.
    """

    bound: float | None = None  # of |u|, per sqrt(time)
    width: bool = False  # r from the second half of the outputs
    unit: float | None = None  # latent units per sqrt(time) that an output of 1 stands for
    own: bool = False

    def __call__(self, outputs: Tensor, h: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read u and r from outputs (rows, d or 2 d, ...); r None without a width."""
        control, width = outputs.chunk(2, 1) if self.width else (outputs, None)
        if self.unit is not None:
            control = self.unit * control
            control = (control - h if self.own else control) / g
        if self.bound is not None:
            control = self.bound * torch.tanh(control / self.bound)
        if width is None:
            return control, None
        width = width + WIDTH_START
        if self.unit is not None:
            width = width + (self.unit / g).log()
        return control, torch.sigmoid(width)


class Posterior(NamedTuple):
    """The control network, its shifts and how its outputs are read."""

    network: Network  # d outputs, or 2 d with a width
    shifts: Float[Tensor, "steps rows hidden"]  # or one for all steps
    reading: Reading = Reading()


class Trajectory(NamedTuple):
    """A solved chain, time first."""

    states: Float[Tensor, "points rows d"]  # at the saved points
    energy: Float[Tensor, " rows"]  # 1/2 sum |u|^2 dt, nats
    width_kl: Float[Tensor, " rows"]  # sum(1/2 (r^2 - 1) - log r), nats


def settled(diffusion: Tensor | Diffusion) -> Tensor | Diffusion:
    """Evaluate g once where it does not depend on z; else return it as it is."""
    if isinstance(diffusion, Diffusion) and diffusion.slope is None:
        return diffusion.at(diffusion.level)
    return diffusion


def em_trajectory(
    z: Float[Tensor, "rows d"],
    drift: Network,
    drift_shift: Float[Tensor, "rows hidden"],
    diffusion: Float[Tensor, "rows d"] | Diffusion,
    posterior: Posterior | None,
    dt: Float[Tensor, "steps rows"],
    dw: Float[Tensor, "steps rows d"],
    saved: Sequence[int] | None = None,
    step: Callable[..., tuple[Tensor, Tensor]] = em_step,
) -> Trajectory:
    """Step z' = z + (h(z) + g u_k(z)) dt + r_k(z) g dW from `z`, for every step of `dt`.

    A row is one clip's vector latent, or one token of its map; rows share the networks. Drift
    h = drift(z, drift_shift) and g (of one row or all) do not change along time, the control does
    by its shifts. `posterior` absent is the prior: u = 0, r = 1. `dt` in units of time; a step of
    no time changes nothing. `saved` names the points, 0 to steps and rising, whose states come
    back; None is all. `step` is em_step, or one that does the same.
    """
    states = [z]
    energy, width_kl = z.new_zeros(len(z)), z.new_zeros(len(z))
    diffusion = settled(diffusion)
    for k in range(len(dt)):
        h, control, width = drift(z, drift_shift), None, None
        if isinstance(diffusion, Tensor):
            g = diffusion.expand_as(z)
        else:
            g, slope = diffusion.with_slope(z)
            more = diffusion.correction(g, slope)
            h = h if more is None else h + more
        if posterior is not None:
            shifts = posterior.shifts
            raw = posterior.network(z, shifts[k if len(shifts) > 1 else 0])
            control, width = posterior.reading(raw, h, g)
            energy = energy + control_energy(control, dt[k, :, None]).sum(1)
        if width is not None:
            width_kl = width_kl + narrowing(width, dt[k, :, None]).sum(1)
        z, _ = step(z, h, g, dt[k], dw[k], control, width)
        states.append(z)
    kept = states if saved is None else [states[point] for point in saved]
    return Trajectory(torch.stack(kept), energy, width_kl)
