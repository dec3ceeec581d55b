"""Futures of the prior, decoded and scored against the frames that came, as sampling is judged.

The bound shows the prior nothing but single steps from the posterior's states. Here it is rolled on
from its own start after the last seen frame, as in sampling, and its pictures are scored by the
energy score, which is proper: it is least where their law is that of the frames, so that neither
haze nor too little noise pays (Gneiting & Raftery 2007, section 4.3).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models import trajectory
from sdevid.models.backbone import Conditions
from sdevid.models.latent_sde import SDEModel
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.history_objective import EncodedClips
from sdevid.objectives.start import Start
from sdevid.sde.noise import Stream, normal
from sdevid.types import Frames, units

_DRAWS = 2  # futures a clip
_SMOOTH = 1e-4  # squared values, so that the distance of equal frames has a gradient


def terms(
    model: SDEModel, clips: EncodedClips, start: Start, conditions: Conditions
) -> dict[str, Float[Tensor, " batch"]]:
    """Compute the term `futures`, none if its weight is 0; 0 for a clip without observed frames."""
    if not model.config.consistency.futures:
        return {}
    rollouts = roll(model, clips, start, conditions)
    real = clips.frames[:, : rollouts.shape[2]]
    score = energy_score(rollouts, real) / model.config.observation.scale
    valid = clips.window.valid[:, : rollouts.shape[2]]
    continued = clips.context.continued
    assert continued is not None
    return {"futures": (score * valid).sum(1) * continued}


def roll(
    model: SDEModel, clips: EncodedClips, start: Start, conditions: Conditions
) -> Float[Tensor, "batch draws time channels height width"]:
    """Decode two futures of each clip, `consistency.futures_frames` long, after its context."""
    config, serial = model.config, clips.serial
    ticks = clips.ticks[:, : config.consistency.futures_frames + 1]
    grid, saved = solver_grid(ticks, model.cell, config.sde.steps_per_frame)
    twice = grid.repeat_interleave(_DRAWS, 0)
    shape = (_DRAWS, grid.shape[1] - 1, *model.noise_shape)
    draws = normal(config.seed, serial, Stream.FUTURE, shape).flatten(0, 1)
    root = units(twice.diff(dim=1)).sqrt()
    eps = normal(config.seed, serial, Stream.FUTURE_START, (_DRAWS, *model.latent_shape))
    state = model.start_prior.continued(clips.context)[1]
    z0 = (state.mean[:, None] + state.scale[:, None] * eps).flatten(0, 1)
    future = None if clips.future is None else clips.future.repeated(_DRAWS)
    bridge = model.bridge_terms(future)
    drive = trajectory.Drive(model.prior, conditions.repeated(_DRAWS), bridge=bridge)
    dw = draws * root.view(*root.shape, *[1] * len(model.noise_shape))
    path = trajectory.solved(config, z0, twice, dw, saved, drive)
    content = start.content.repeat_interleave(_DRAWS, 0)
    frames = model.decode(path.states, content, clips.context.repeated(_DRAWS))
    return torch.unflatten(frames, 0, (-1, _DRAWS))


def energy_score(
    rollouts: Float[Tensor, "batch 2 time channels height width"], real: Frames
) -> Float[Tensor, "batch time"]:
    """Compute each frame's 1/2 (|a - y| + |b - y| - |a - b|) of two futures a, b and the real y."""
    a, b = rollouts.unbind(1)
    return 0.5 * (_distance(a, real) + _distance(b, real) - _distance(a, b))


def _distance(a: Frames, b: Frames) -> Float[Tensor, "batch time"]:
    return ((a - b).square().flatten(2).sum(2) + _SMOOTH).sqrt()
