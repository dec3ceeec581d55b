"""The chain of a state of particles, by the prior or by the posterior, with its exact KL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.particles.law import Motion, ParticleConditions, ParticleLaw
from sdevid.models.particles.posterior import Observation
from sdevid.models.particles.state import Layout, ParticleState
from sdevid.sde import carried_noise

Observe = Callable[[ParticleState, int], Observation]  # (state before step k, k)


class ParticlePath(NamedTuple):
    """A solved path."""

    states: Float[Tensor, "batch saved particles components"]
    kl: Float[Tensor, " batch"]  # nats, from the prior
    energy: Float[Tensor, " batch"]  # 1/2 |e|^2, the control's part of `kl`, nats


class Scales(NamedTuple):
    """One step: where the prior's mean puts a particle, and how far noise of 1 shifts it."""

    base: Float[Tensor, "batch particles 2"]  # shift of the place without noise, pixels
    noise: Float[Tensor, "batch particles axes"]  # pixels; one for both axes or one for each


def solve_path(
    law: ParticleLaw,
    start: ParticleState,
    conditions: ParticleConditions,
    dt: Float[Tensor, "batch steps"],
    increments: Float[Tensor, "batch steps particles noises"],
    saved: Sequence[int],
    observe: Observe | None = None,
) -> ParticlePath:
    """Step the prior, or the posterior that `observe` gives, and keep the grid points `saved`.

    `dt` is in training frames; a step of no time changes neither state nor KL. `increments` are
    those of a Brownian motion, independent over particles: the law correlates them by its length.
    """
    z, states = start, [start]
    spent = [start.new_zeros(len(start)), start.new_zeros(len(start))]
    white = increments / dt.clamp(min=1e-12).sqrt()[..., None, None]
    for k in range(dt.shape[1]):
        seen = None if observe is None else observe(z, k)
        z, kl, energy = _step(law, z, conditions, dt[:, k, None, None], white[:, k], seen)
        spent = [spent[0] + kl, spent[1] + energy]
        states.append(z)
    return ParticlePath(torch.stack([states[k] for k in saved], dim=1), *spent)


def _step(
    law: ParticleLaw,
    z: ParticleState,
    conditions: ParticleConditions,
    dt: Float[Tensor, "batch 1 1"],
    xi: Float[Tensor, "batch particles noises"],
    seen: Observation | None,
) -> tuple[ParticleState, Tensor, Tensor]:
    layout = law.layout
    place, velocity, depth = layout.split(z)
    base, width = scales(layout, z, law.motion(z, conditions), dt)
    moving = (dt > 0).to(z.dtype)
    if seen is None:
        noise = carried_noise.prior_draw(conditions.root, xi[..., :2])
        kl = energy = z.new_zeros(len(z))
    else:
        unit = width.clamp(min=1e-6)
        wanted = seen.shift
        if law.walls is not None:
            wanted = law.walls.unfold(place + seen.shift, place + base) - place
        observed = moving * (wanted - base) / unit
        precision = moving * seen.precision * unit.square()
        posterior = carried_noise.posterior(conditions.root, observed, precision)
        noise, kl = posterior.draw(xi[..., :2]), posterior.kl
        energy = 0.5 * posterior.mean.square().sum((1, 2))
    shift = base + width * noise
    if velocity is not None:
        velocity = torch.where(dt > 0, shift / dt.clamp(min=1e-12), velocity)
    place = place + shift
    if law.walls is not None:
        place, turn = law.walls.fold(place)
        velocity = None if velocity is None else turn * velocity
    if depth is not None:
        depth, more = _depth_step(law, depth, dt, xi[..., 2:], seen)
        kl = kl + more
    return layout.join(place, velocity, depth), kl, energy


def scales(
    layout: Layout,
    z: ParticleState,
    motion: Motion,
    dt: Float[Tensor, "batch 1 1"],
) -> Scales:
    """Compute a step's mean and scale of the places; in second order v' d moves them.

    There v' = v + h d + g sqrt(d) f.
    """
    velocity, (pull, diffusion) = layout.split(z)[1], motion
    if velocity is None:
        return Scales(pull * dt, diffusion * dt.sqrt())
    return Scales((velocity + pull * dt) * dt, diffusion * dt.sqrt() * dt)


def _depth_step(
    law: ParticleLaw,
    depth: Float[Tensor, "batch particles 1"],
    dt: Float[Tensor, "batch 1 1"],
    xi: Float[Tensor, "batch particles 1"],
    seen: Observation | None,
) -> tuple[Tensor, Tensor]:
    """Step du = -rate u dt + noise dB by its exact transition; particles are independent."""
    rate, noise = law.depth()
    decay = torch.exp(-rate * dt)
    unit = noise * ((1 - decay.square()) / (2 * rate)).sqrt()
    if seen is None or seen.depth is None or seen.depth_precision is None:
        return decay * depth + unit * xi, depth.new_zeros(len(depth))
    moving = (dt > 0).to(depth.dtype)
    mean, width, kl = carried_noise.own_posterior(
        moving * seen.depth / unit.clamp(min=1e-6), moving * seen.depth_precision
    )
    return decay * depth + unit * (mean + width * xi), kl.flatten(1).sum(1)
