"""Importance weights of the posterior's draws: what the bound and tighter ones are means of."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.config import Config
from sdevid.models.gaussian import Gaussian
from sdevid.models.start import StartDraw
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import EncodedClips
from sdevid.objectives.start import Start
from sdevid.sde.noise import Stream, normal
from sdevid.types import Serial, Ticks, Video


@runtime_checkable
class WeightedObjective(Protocol):
    """An objective whose posterior's paths have a density."""

    model: Any
    config: Config

    def encode(self, clips: Clips) -> EncodedClips:
        """Encode what the prior may see and what the posterior sees."""

    def weighted_path(
        self, clips: EncodedClips, start: Start
    ) -> tuple[Tensor, Float[Tensor, " batch"]]:
        """Draw the posterior's path; return it at the frames with its log p / q in nats."""


@torch.no_grad()
def log_weight(
    objective: WeightedObjective, video: Video, ticks: Ticks, serial: Serial
) -> Float[Tensor, " batch"]:
    """Compute log p(x, w, z) - log q(w, z | x) at one draw of the posterior, in nats.

    No frame is observed. Its mean over draws is the evidence lower bound, and the log of the mean
    of K exponentials the tighter importance weighted one (Burda et al. 2016). `serial` keys the
    draw.
    """
    model, seed = objective.model, objective.config.seed
    clips = objective.encode(Clips(video, ticks, serial, context=0))
    content, states = model.posterior_at_frames(clips.tokens)
    state = Gaussian(states.mean[:, 0], states.scale[:, 0])
    eps_w = normal(seed, serial, Stream.CONTENT, content.mean.shape[1:])
    eps_z = normal(seed, serial, Stream.INITIAL, model.latent_shape)
    w, z0 = content.at(eps_w), state.at(eps_z)
    draw = StartDraw(content, state, w, z0, eps_z)
    path, ratio = objective.weighted_path(clips, Start(w, z0[:, None], states, {}))
    weight: Tensor = model.likelihood.log_prob(
        model.decode(path, w, clips.context, clips.ticks), clips.frames
    ).sum(1)
    weight = weight + model.start_prior.log_prob(draw, clips.context, seed, serial)
    return weight - _normal_log_prob(content, w) - _normal_log_prob(state, z0) + ratio


def bound(log_weights: Float[Tensor, "draws *batch"]) -> Float[Tensor, "*batch"]:
    """Compute log mean exp over the draws: a lower bound on log p(x), tighter with more draws."""
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))


def _normal_log_prob(law: Gaussian, at: Tensor) -> Float[Tensor, " batch"]:
    apart = (at - law.mean) / law.scale
    each = -0.5 * apart.square() - law.scale.log() - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(1)
