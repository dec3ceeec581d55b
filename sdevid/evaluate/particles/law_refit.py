"""The law of particles fitted once more, to recorded paths of the posterior alone.

In training the law sees each path of the posterior once, and among much else. With reader,
painter and posterior left as they are, the law that makes the bound largest is the one under which
the posterior's paths are most likely; the law is small, so that this takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdevid.data.shards import ShardIndex
from sdevid.errors import UserError
from sdevid.evaluate.particles.model_law import windows
from sdevid.evaluate.progress import batches
from sdevid.models.initial_weights import initial_weights
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.model import ParticleSDE
from sdevid.models.particles.path import scales
from sdevid.models.particles.state import Content, ParticleState
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.particles import ParticleObjective
from sdevid.types import Frames, as_frames

UPDATES, BATCH = 500, 512  # of the fit; a batch is of single steps of all particles of a film
LEARNING_RATE = 3e-3  # falls to a thirtieth
HELD_OUT = 8  # each eighth window tells whether the fit has helped
JUMPS, FAR = 0.02, 8.0  # share of held-out steps that may be a jump, and its size in pixels
LONGER = 2  # a window is as long as that many of training, where a clip has as many frames
UNTOLD = ("log_length", "depth_noise", "log_depth_rate")


class Steps(NamedTuple):
    """Single steps of posterior paths, (steps, ...)."""

    before: ParticleState
    after: ParticleState
    seen: Bool[Tensor, "steps particles"]  # before and after
    content: Content
    dt: Float[Tensor, "steps 1 1"]  # training frames

    def rows(self, chosen: Tensor) -> Steps:
        """Select steps."""
        before, after, seen, content, dt = self
        return Steps(before[chosen], after[chosen], seen[chosen], content.rows(chosen), dt[chosen])


@dataclass(frozen=True)
class Refit:
    """How much likelier the refitted law makes paths that it was not fitted to."""

    windows: int
    steps: int
    seen: float  # share of the particles' steps that is of what is seen
    before: float  # mean log density of a particle's step, nats
    after: float

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return asdict(self)


def refit(objective: ParticleObjective, index: ShardIndex, clips: range, seed: int = 0) -> Refit:
    """Fit the law of `objective`'s model to its posterior's paths on these clips of `index`.

    The law is drawn anew first: a trained one keeps for long what lost things have taught it.
    Raises UserError where the chain has several steps a frame, noise that particles share or a
    text, where clips are too few to hold some out, or where the fit makes the paths held out less
    likely: the law then stays as it is.
    """
    model = objective.model
    _check(model)
    paths = recorded(objective, index, clips)
    held_out = torch.arange(len(paths.dt), device=paths.dt.device) % HELD_OUT == 0
    if bool(held_out.all()):
        raise UserError(f"{len(held_out)} window of a clip is too little to refit a law; give more")
    kept, fitted = _steps(paths, held_out), _steps(paths, ~held_out)
    law = _drawn_anew(model, seed)
    fit(law, fitted, seed, UPDATES)
    before, after = (log_density(one, kept, JUMPS).item() for one in (model.law, law))
    if not after > before:
        raise UserError(
            f"refitted, the law makes steps of held-out paths less likely ({before:.3g} to "
            f"{after:.3g} nats); give more clips by --num_clips"
        )
    model.law = law
    share = float(fitted.seen.float().mean())
    return Refit(len(held_out), len(fitted.dt), share, before, after)


def _drawn_anew(model: ParticleSDE, seed: int) -> ParticleLaw:
    """Draw a law's weights, but keep what the steps of places do not tell."""
    with initial_weights(seed, "law"):
        law = ParticleLaw(model.config)
    old = model.law.state_dict()
    law.load_state_dict({name: old[name] for name in UNTOLD if name in old}, strict=False)
    return law.to(model.law.log_diffusion.device)


class Paths(NamedTuple):
    """Paths of the posterior through windows of clips."""

    states: Float[Tensor, "windows frames particles components"]
    seen: Bool[Tensor, "windows frames particles"]
    content: Content
    dt: Float[Tensor, "windows intervals"]  # training frames; 0 past a window's end


@torch.no_grad()
def recorded(objective: ParticleObjective, index: ShardIndex, clips: range) -> Paths:
    """Draw the posterior's path through each window of these clips.

    A path's first step is left out: it makes up for what was misread at its start.
    """
    config, device = objective.config, next(objective.parameters()).device
    shortest = min(index.clips[number].num_frames for number in clips)
    length = min(LONGER * config.sequence_length, shortest)
    config = config.model_copy(update={"sequence_length": length})
    drawn = []
    for part in batches(clips, 1, "the posterior's paths"):
        for number in part:
            video, ticks, serial = (x.to(device) for x in windows(index, config, number))
            context = objective.model.reader.memory
            draw = objective.posterior(Clips(video, ticks, serial, context=context))
            frames = draw.window.cut(as_frames(video))
            there = seen(objective.model, draw.path.states, draw.birth.content, frames)
            content = draw.birth.content._replace(views=None)
            content = content._replace(ground=content.ground[..., :1, :1])  # the law reads none
            drawn.append(
                Paths(draw.path.states[:, 1:], there[:, 1:], content, draw.intervals[:, 1:])
            )
    states = torch.cat([paths.states for paths in drawn])
    content = Content(*map(torch.cat, zip(*(paths.content[:4] for paths in drawn), strict=True)))
    there = torch.cat([paths.seen for paths in drawn])
    return Paths(states, there, content, torch.cat([paths.dt for paths in drawn]))


def seen(
    model: ParticleSDE,
    states: Float[Tensor, "windows frames particles components"],
    content: Content,
    frames: Frames,
) -> Bool[Tensor, "windows frames particles"]:
    """Tell where `frames` are closer with a thing painted than without it; blobs are always seen.

    What was never found, or has left the picture, moves as it likes, which says nothing.
    """
    if not model.paints_patches:
        return torch.ones_like(states[..., 0], dtype=torch.bool)

    def error(logit: Float[Tensor, "windows particles 1"]) -> Float[Tensor, "windows frames"]:
        drawn = model.decoder(states, content._replace(logit=logit))
        off: Tensor = (drawn - frames).nan_to_num(0.0).square().sum((2, 3, 4))
        return off

    whole, without = error(content.logit), []
    for number in range(states.shape[2]):
        logit = content.logit.clone()
        logit[:, number] = -torch.inf
        without.append(error(logit))
    return torch.stack(without, dim=-1) > whole[..., None]


def _steps(paths: Paths, chosen: Bool[Tensor, " windows"]) -> Steps:
    """Cut the chosen paths into single steps, less those of no time."""
    states, there, dt = paths.states[chosen], paths.seen[chosen], paths.dt[chosen]
    content = paths.content.rows(chosen).repeated(dt.shape[1])
    lasting = (dt > 0).flatten()
    return Steps(
        states[:, :-1].flatten(0, 1)[lasting],
        states[:, 1:].flatten(0, 1)[lasting],
        (there[:, 1:] & there[:, :-1]).flatten(0, 1)[lasting],
        content.rows(lasting),
        dt.flatten()[lasting][:, None, None],
    )


def log_density(law: ParticleLaw, steps: Steps, jumps: float = 0.0) -> Float[Tensor, ""]:
    """Compute the mean log density of where a step leads, over steps of what is seen, in nats.

    A share `jumps` of the steps may be of the posterior's making, `FAR` pixels wide: else the few
    at which it takes one thing for another outweigh all others.
    """
    conditions = law.conditions(steps.content)
    motion = law.motion(steps.before, conditions)
    base, noise, _ = scales(law.layout, steps.before, motion, steps.dt)
    (place, *_), (then, *_) = law.layout.split(steps.before), law.layout.split(steps.after)
    apart = then - place - base
    each = _log_normal(apart, noise.clamp(min=1e-6))
    if jumps:
        far = _log_normal(apart, torch.full_like(noise, FAR))
        each = torch.logaddexp(each + math.log(1 - jumps), far + math.log(jumps))
    return (each * steps.seen).sum() / steps.seen.sum().clamp(min=1)


def _log_normal(
    apart: Float[Tensor, "*batch 2"], scale: Float[Tensor, "*batch axes"]
) -> Float[Tensor, " *batch"]:
    each: Tensor = -0.5 * (apart / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    return each.sum(-1)


def fit(law: ParticleLaw, steps: Steps, seed: int, updates: int) -> None:
    """Make `steps` as likely as can be, by Adam on batches drawn by `seed`."""
    parameters = list(law.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / 30, updates)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        rows = torch.randint(len(steps.dt), (BATCH,), generator=draw).to(steps.dt.device)
        optimizer.zero_grad()
        (-log_density(law, steps.rows(rows))).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        falling.step()


def _check(model: ParticleSDE) -> None:
    settings = model.config.sde
    if settings.steps_per_frame != 1:
        raise UserError(
            f"sde.steps_per_frame is {settings.steps_per_frame}, but a law is refitted to paths "
            "known at each of its steps; leave --refit out"
        )
    if settings.noise == "carried":
        raise UserError(
            "sde.noise is carried, but a law is refitted to particles that move on their own; "
            "leave --refit out"
        )
    if model.law.log_jitter is not None:
        raise UserError(
            f"particles.jitter_start is {model.config.particles.jitter_start:g}, but a law is "
            "refitted to velocities that are known, which noise of the places hides; leave "
            "--refit out"
        )
    if model.text is not None:
        raise UserError(
            f"text.encoder is {model.config.text.encoder}, but a law is refitted without captions; "
            "leave --refit out"
        )
