"""What ties the prior's steps together: over several frames, and between two step lengths.

Both take the posterior's states as given: what they move is the prior and what it is conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models import trajectory
from sdevid.models.backbone import Conditions
from sdevid.models.bridge_conditioning import FutureFrames
from sdevid.models.latent_sde import SDEModel
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.window import Window
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import TICKS_PER_UNIT, Serial, Ticks, units


class Rolled(NamedTuple):
    """The posterior's states at the frames of a window, and the prior's conditions there."""

    states: Float[Tensor, "batch time *latent"]
    ticks: Ticks
    window: Window
    conditions: Conditions
    future: FutureFrames | None
    serial: Serial


def terms(model: SDEModel, rolled: Rolled) -> dict[str, Float[Tensor, " batch"]]:
    """Compute each clip's terms whose weight is not 0."""
    settings = model.config.consistency
    scored: dict[str, Tensor] = {}
    rolled = rolled._replace(states=rolled.states.detach())
    if settings.prior_consistency:
        scored["prior_consistency"] = over_frames(model, rolled)
    if settings.step_halving:
        scored["step_halving"] = step_halving(model, rolled)
    return scored


def over_frames(model: SDEModel, rolled: Rolled) -> Float[Tensor, " batch"]:
    """Compute the energy score of the prior, rolled `prior_frames` on, at the posterior's state.

    From a frame drawn for each clip; with two rolls a and b and the state y it is
    1/2 (|a - y| + |b - y|) - 1/2 |a - b|, which is least where the prior's law is that of y
    (Gneiting & Raftery 2007, section 4.3): unlike a distance, it does not call for less noise.
    """
    config, count = model.config, model.config.consistency.prior_frames
    frames = rolled.window.valid.sum(1, keepdim=True)
    share = uniform(config.seed, rolled.serial, Stream.ROLL, (1,))
    first = (share * (frames - count).clamp(min=1)).long()
    place = (first + torch.arange(count + 1, device=first.device)).minimum(frames - 1)
    rows = torch.arange(len(place), device=place.device)[:, None]
    grid, saved = solver_grid(rolled.ticks[rows, place], model.cell, config.sde.steps_per_frame)
    shape = (2, grid.shape[1] - 1, *model.noise_shape)
    draws = normal(config.seed, rolled.serial, Stream.ROLL_PATH, shape).flatten(0, 1)
    twice = grid.repeat_interleave(2, 0)
    root = units(twice.diff(dim=1)).sqrt()
    future = None if rolled.future is None else rolled.future.repeated(2)
    conditions = rolled.conditions.repeated(2)
    path = trajectory.solved(
        config,
        rolled.states[rows, place[:, :1]].expand(-1, 2, *model.latent_shape).flatten(0, 1),
        twice,
        draws * root.view(*root.shape, *[1] * len(model.noise_shape)),
        saved[-1:],
        trajectory.Drive(model.prior, conditions, bridge=model.bridge_terms(future)),
    )
    a, b = torch.unflatten(path.states[:, 0], 0, (-1, 2)).unbind(1)
    y = rolled.states[rows, place[:, -1:]][:, 0]
    return 0.5 * (_distance(a, y) + _distance(b, y) - _distance(a, b))


def step_halving(model: SDEModel, rolled: Rolled) -> Float[Tensor, " batch"]:
    """Compare one step of training's length with two of half of it on the same Brownian path.

    From the posterior's state at each frame; squared, in units of the step's noise g^2 d, summed
    over components and averaged over frames. For a state of second order, only its velocities.
    """
    states, size = rolled.states, rolled.states.shape[1]
    z, d = states.flatten(0, 1), model.cell / TICKS_PER_UNIT
    conditions = rolled.conditions.repeated(size)
    shape = (2, size, *model.noise_shape)
    draws = normal(model.config.seed, rolled.serial, Stream.ROLL_STEP, shape)
    early, late = ((0.5 * d) ** 0.5 * part.flatten(0, 1) for part in draws.unbind(1))
    term = model.bridge_term(rolled.future, rolled.ticks)
    term = None if term is None else term.flatten()
    drift, g = model.prior(z, conditions, term)
    step = trajectory.step_of(model.config)
    whole = step(z, drift, g, d, early + late)
    half = step(z, drift, g, 0.5 * d, early)
    drift, later = model.prior(half, conditions, term)
    halves = step(half, drift, later, 0.5 * d, late)
    apart = (whole - halves)[:, -model.noise_shape[0] :].square() / (g.detach().square() * d)
    each = torch.unflatten(apart.flatten(1).sum(1), 0, (-1, size)) * rolled.window.valid
    return each.sum(1) / rolled.window.valid.sum(1)


def _distance(a: Tensor, b: Tensor) -> Float[Tensor, " batch"]:
    """Compute the Euclidean distance over all axes but the first; smooth where both are equal."""
    return ((a - b).square().flatten(1).sum(1) + 1e-8).sqrt()
