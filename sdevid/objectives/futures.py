"""Futures of the prior, decoded and scored against the frames that came, as sampling is judged.

The bound shows the prior nothing but single steps from the posterior's states. Here it is rolled on
from its own start after the last seen frame, as in sampling, and its pictures are scored by the
energy score, which is proper: it is least where their law is that of the frames, so that neither
haze nor too little noise pays (Gneiting & Raftery 2007, section 4.3).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Conditions
from sdevid.models.latent_sde import SDEModel
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.history_objective import EncodedClips
from sdevid.objectives.start import Start
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Frames, Serial, units

_DRAWS = 2  # futures a clip
_SMOOTH = 1e-4  # squared values, so that the distance of equal frames has a gradient


def terms(
    model: SDEModel, clips: EncodedClips, start: Start, conditions: Conditions
) -> dict[str, Float[Tensor, " batch"]]:
    """Compute the term `futures`, none if its weight is 0; 0 for a clip without observed frames."""
    if not model.config.consistency.futures:
        return {}
    chosen, weight = scored(model.config, clips.serial)
    rollouts = roll(model, clips, start, conditions, chosen)
    rows = torch.arange(len(chosen), device=chosen.device)[:, None]
    real, valid = clips.frames[rows, chosen], clips.window.valid[rows, chosen]
    score = scale_score(rollouts, real, model.config.consistency.futures_scales)
    score = score / model.config.observation.scale
    continued = clips.context.continued
    assert continued is not None
    return {"futures": weight * (score * valid).sum(1) * continued}


def scored(config: Config, serial: Serial) -> tuple[Int64[Tensor, "batch chosen"], float]:
    """Choose the frames of a future that are decoded, and the weight that makes up for the others.

    All of them with weight 1, the start among them; or as many as `consistency.futures_scored`
    after the start, one drawn from each of as many equal parts of the future.
    """
    frames, count = config.consistency.futures_frames, config.consistency.futures_scored
    if count is None:
        every = torch.arange(frames + 1, device=serial.device)
        return every.expand(len(serial), -1), 1.0
    draws = uniform(config.seed, serial, Stream.FUTURE_FRAMES, (count,))
    parts = torch.arange(count, device=serial.device)
    at = 1 + ((parts + draws) * (frames / count)).long()
    return at.clamp(max=frames), frames / count


def roll(
    model: SDEModel,
    clips: EncodedClips,
    start: Start,
    conditions: Conditions,
    chosen: Int64[Tensor, "batch chosen"],
) -> Float[Tensor, "batch draws chosen channels height width"]:
    """Decode the `chosen` frames of two futures of each clip, which go on from its context."""
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
    conditions = model.prior.anchored(conditions.repeated(_DRAWS), z0)
    drive = trajectory.Drive(model.prior, conditions, bridge=bridge)
    dw = draws * root.view(*root.shape, *[1] * len(model.noise_shape))
    path = trajectory.solved(config, z0, twice, dw, saved, drive)
    content = start.content.repeat_interleave(_DRAWS, 0)
    rows = torch.arange(len(path.states), device=chosen.device)[:, None]
    states = path.states[rows, chosen.repeat_interleave(_DRAWS, 0)]
    at = clips.ticks[rows[: len(chosen)], chosen].repeat_interleave(_DRAWS, 0)
    frames = model.decode(states, content, clips.context.repeated(_DRAWS), at)
    return torch.unflatten(frames, 0, (-1, _DRAWS))


def scale_score(
    rollouts: Float[Tensor, "batch 2 time channels height width"], real: Frames, scales: int
) -> Float[Tensor, "batch time"]:
    """Average the energy scores of frames as they are, and of means over 2 x 2, 4 x 4, ... pixels.

    A sum of proper scores is proper. Of fine strokes that miss each other the plain score is flat;
    the means still say in which direction they lie. A mean over k x k counts k-fold, so that a
    smooth difference has the same distance at every scale.
    """
    score = energy_score(rollouts, real)
    for k in (2**scale for scale in range(1, scales)):
        score = score + k * energy_score(_means(rollouts, k), _means(real, k))
    return score / scales


def _means(frames: Float[Tensor, "*any"], size: int) -> Float[Tensor, "*any2"]:
    flat = frames.flatten(0, -4)
    pooled = functional.avg_pool2d(flat, size)
    return pooled.view(*frames.shape[:-3], *pooled.shape[1:])


def energy_score(
    rollouts: Float[Tensor, "batch 2 time channels height width"], real: Frames
) -> Float[Tensor, "batch time"]:
    """Compute each frame's 1/2 (|a - y| + |b - y| - |a - b|) of two futures a, b and the real y."""
    a, b = rollouts.unbind(1)
    return 0.5 * (_distance(a, real) + _distance(b, real) - _distance(a, b))


def _distance(a: Frames, b: Frames) -> Float[Tensor, "batch time"]:
    return ((a - b).square().flatten(2).sum(2) + _SMOOTH).sqrt()
