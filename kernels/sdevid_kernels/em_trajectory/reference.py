"""A whole Euler-Maruyama chain with SiLU networks as drift and control, by autograd."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sdevid_kernels.em_step.reference import em_step

WIDTH_START = 3.0  # a raw output of 0 is a width of sigmoid(3) = 0.95


class Network(NamedTuple):
    """SiLU layers and a linear last one, as (weight (out, in), bias (out,)) from first to last.

    The first layer has no bias of its own: it is given a shift, which may differ between rows.
    """

    first: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...]
    last: tuple[Tensor, Tensor]

    def __call__(self, z: Tensor, shift: Tensor) -> Tensor:
        """Outputs for states (rows, d) and the first layer's `shift` (rows, hidden)."""
        x = functional.silu(functional.linear(z, self.first) + shift)
        for weight, bias in self.hidden:
            x = functional.silu(functional.linear(x, weight, bias))
        return functional.linear(x, *self.last)


class Posterior(NamedTuple):
    """The control network and how its outputs are read."""

    network: Network  # d outputs, or 2 d with a width
    shifts: Float[Tensor, "steps rows hidden"]
    bound: float | None = None  # u = bound * tanh(output / bound), per sqrt(second)
    width: bool = False  # r = sigmoid(output + 3) from the second half of the outputs


class Trajectory(NamedTuple):
    """A solved chain, time first."""

    states: Float[Tensor, "points rows d"]
    energy: Float[Tensor, " rows"]  # 1/2 sum |u|^2 dt, nats
    width_kl: Float[Tensor, " rows"]  # sum(1/2 (r^2 - 1) - log r), nats


def read_control(raw: Tensor, posterior: Posterior) -> tuple[Tensor, Tensor | None]:
    """u and r from the control network's outputs."""
    control, width = raw.chunk(2, -1) if posterior.width else (raw, None)
    if posterior.bound is not None:
        control = posterior.bound * torch.tanh(control / posterior.bound)
    return control, None if width is None else torch.sigmoid(width + WIDTH_START)


def em_trajectory(
    z: Float[Tensor, "rows d"],
    drift: Network,
    drift_shift: Float[Tensor, "rows hidden"],
    diffusion: Float[Tensor, "rows d"],
    posterior: Posterior | None,
    dt: Float[Tensor, "steps rows"],
    dw: Float[Tensor, "steps rows d"],
) -> Trajectory:
    """z' = z + (h(z) + g u_k(z)) dt + r_k(z) g dW from `z`, for every step of `dt`.

    A row is one clip's vector latent, or one token of its map; rows share the networks. Drift
    h = drift(z, drift_shift) and g (of one row or all) do not change along time, the control does
    by its shifts. `posterior` absent is the prior: u = 0, r = 1. `dt` in seconds; a step of no time
    changes nothing.
    """
    states = [z]
    energy, width_kl = z.new_zeros(len(z)), z.new_zeros(len(z))
    for k in range(len(dt)):
        control, width = None, None
        if posterior is not None:
            raw = posterior.network(z, posterior.shifts[k])
            control, width = read_control(raw, posterior)
            energy = energy + 0.5 * control.square().sum(1) * dt[k]
        if width is not None:
            spent = (0.5 * (width.square() - 1) - width.log()).sum(1)
            width_kl = width_kl + spent * (dt[k] > 0)
        h = drift(z, drift_shift)
        z, _ = em_step(z, h, diffusion.expand_as(z), dt[k], dw[k], control, width)
        states.append(z)
    return Trajectory(torch.stack(states), energy, width_kl)
