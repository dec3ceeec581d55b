"""The chain of a state of particles, by the prior or by the posterior, with its exact KL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.particles.law import Motion, ParticleConditions, ParticleLaw
from sdevid.models.particles.posterior import Observation
from sdevid.models.particles.state import Layout, ParticleState, Positions
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
    gain: Float[Tensor, "batch particles axes"] | None  # share of that noise that turns velocities


def solve_path(
    law: ParticleLaw,
    start: ParticleState,
    conditions: ParticleConditions,
    dt: Float[Tensor, "batch steps"],
    increments: Float[Tensor, "batch steps particles noises"],
    saved: Sequence[int],
    observe: Observe | None = None,
    returned: Callable[[Positions], Positions] | None = None,
) -> ParticlePath:
    """Step the prior, or the posterior that `observe` gives, and keep the grid points `saved`.

    `returned` takes places that leave a ring to where they come in.

    `dt` is in training frames; a step of no time changes neither state nor KL. `increments` are
    those of a Brownian motion, independent over particles: the law correlates them by its length.
    """
    z, states = start, [start]
    spent = [start.new_zeros(len(start)), start.new_zeros(len(start))]
    white = increments / dt.clamp(min=1e-12).sqrt()[..., None, None]
    for k in range(dt.shape[1]):
        seen = None if observe is None else observe(_shown(law.layout, z), k)
        z, kl, energy = _step(law, z, conditions, dt[:, k, None, None], white[:, k], seen)
        if returned is not None:
            z = torch.cat([returned(z[..., :2]), z[..., 2:]], dim=-1)
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
    layout, motion = law.layout, law.motion(z, conditions)
    place, velocity, depth = layout.split(z)
    if seen is None:
        step = _prior_step(layout, z, motion, dt, carried_noise.prior_draw(conditions.root, xi))
        if conditions.group is not None:
            step = Step(*(conditions.group @ part for part in step))
        kl = energy = z.new_zeros(len(z))
    else:
        step, kl, energy = _posterior_step(law, z, motion, conditions.root, dt, xi[..., :2], seen)
    place = place + step.shift
    if velocity is not None:
        velocity = torch.where(dt > 0, step.way / dt.clamp(min=1e-12), velocity)
    if law.walls is not None:
        place, turn = law.walls.fold(place)
        velocity = None if velocity is None else turn * velocity
    if depth is not None:
        depth, more = _depth_step(law, depth, dt, xi[..., 2:], seen)
        kl = kl + more
    return layout.join(place, velocity, depth, _pose_step(law, z, step.shift)), kl, energy


def _shown(layout: Layout, z: ParticleState) -> ParticleState:
    """Return the state that the posterior sees: with a jitter, no gradient to its velocity."""
    if not layout.has_jitter:
        return z
    return torch.cat([z[..., :2], z[..., 2:].detach()], dim=-1)


class Step(NamedTuple):
    """Where one step leads."""

    shift: Float[Tensor, "batch particles 2"]  # of the place, pixels
    way: Float[Tensor, "batch particles 2"]  # of it what the new velocity accounts for, pixels


def _prior_step(
    layout: Layout,
    z: ParticleState,
    motion: Motion,
    dt: Float[Tensor, "batch 1 1"],
    noise: Float[Tensor, "batch particles noises"],
) -> Step:
    base, width, _ = scales(layout, z, motion._replace(jitter=None), dt)
    way = base + width * noise[..., :2]
    if motion.jitter is None:
        return Step(way, way)
    return Step(way + motion.jitter.noise * dt.sqrt() * noise[..., 2:4], way)


def _posterior_step(
    law: ParticleLaw,
    z: ParticleState,
    motion: Motion,
    root: carried_noise.Root,
    dt: Float[Tensor, "batch 1 1"],
    xi: Float[Tensor, "batch particles 2"],
    seen: Observation,
) -> tuple[Step, Tensor, Tensor]:
    """Draw where a step leads; of a law with a jitter, no gradient passes through the draw.

    What a picture gains by places that lie nearer to what is seen would outweigh all that the walk
    says of two noises; such a law learns from the divergence alone. So does h, in first order or by
    place.
    """
    base, width, gain = scales(law.layout, z, motion, dt)
    prior_mean = None
    if law.by_place is not None or law.layout.order == 1:
        learnt = base
        base = scales(law.layout, z, motion._replace(pull=motion.pull.detach()), dt).base
        prior_mean = (learnt - base) / width.clamp(min=1e-6)
    moving, wanted = (dt > 0).to(z.dtype), seen.shift
    if law.walls is not None:
        place = z[..., :2]
        wanted = law.walls.unfold(place + seen.shift, place + base) - place

    def told(base: Tensor, width: Tensor) -> carried_noise.NoisePosterior:
        unit = width.clamp(min=1e-6)
        observed, precision = moving * (wanted - base) / unit, seen.precision * unit.square()
        return carried_noise.posterior(root, observed, moving * precision)

    posterior = told(base, width)
    energy = 0.5 * posterior.mean.square().sum((1, 2))
    if gain is None:
        shift = way = base + width * posterior.draw(xi)
    else:
        at, scale = base.detach(), width.detach()
        shift = at + scale * told(at, scale).draw(xi)
        way = base + gain * (shift - base)
    return Step(shift, way), posterior.kl_from(prior_mean), energy


def _pose_step(law: ParticleLaw, z: ParticleState, shift: Tensor) -> Tensor | None:
    """Turn the poses by the way walked; what is then drawn does not move the things."""
    pose = law.layout.pose(z)
    if pose is None:
        return None
    turned: Tensor = pose + shift.detach().norm(dim=-1, keepdim=True) / law.stride()
    return turned


def scales(
    layout: Layout,
    z: ParticleState,
    motion: Motion,
    dt: Float[Tensor, "batch 1 1"],
) -> Scales:
    """Compute a step's mean and scale of the places; in second order v' d moves them.

    There v' = v + h d + g sqrt(d) f. With a jitter s the place moves by v' d + s sqrt(d) e. The
    posterior, which sees places alone, then holds the mean of v given the places so far: by the
    Kalman filter in its steady state a share `gain` of what a step brings unforeseen is velocity.
    So places have the law of both noises, but one drives the chain, and its divergence is exact.
    """
    velocity, (pull, diffusion, jitter) = layout.split(z)[1], motion
    if velocity is None:
        return Scales(pull * dt, diffusion * dt.sqrt(), None)
    base = (velocity + pull * dt) * dt
    if jitter is None:
        return Scales(base, diffusion * dt.sqrt() * dt, None)
    span = dt.clamp(min=1e-12)
    own = jitter.noise.square() / span  # variance of a step's mean velocity
    known = filtered(diffusion.square() * span, own, 1 - jitter.friction * span)
    return Scales(base, dt * (known + own).sqrt(), known / (known + own))


def filtered(fresh: Tensor, own: Tensor, kept: Tensor) -> Tensor:
    """Compute the variance M of a velocity before it is seen, in the filter's steady state.

    v' = kept v + noise of variance `fresh`, seen with errors of variance `own`, so that M = kept^2
    M own / (M + own) + fresh.
    """
    excess = fresh - own * (1 - kept.square())
    return 0.5 * (excess + (excess.square() + 4 * fresh * own).sqrt())


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
