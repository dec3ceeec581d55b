"""Draws of the static content and of the states that the posterior gives directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdevid.models.gaussian import Gaussian
from sdevid.models.start import StartDraw
from sdevid.models.temporal import History
from sdevid.sde.noise import Stream, normal

if TYPE_CHECKING:
    from sdevid.models.history_model import HistoryModel
    from sdevid.objectives.clip_objective import PerClip
    from sdevid.objectives.history_objective import EncodedClips


class Start(NamedTuple):
    """A draw of w and z from the posterior, and the divergence spent on the path's start."""

    content: Float[Tensor, "batch content *cells"]  # w
    states: Float[Tensor, "batch frames *latent"]  # z at the first frame of the window, or at all
    posterior: Gaussian  # of the states
    divergence: PerClip  # nats: kl_initial of z_0 and kl_content of w, or kl_birth


def draw_start(
    model: HistoryModel,
    clips: EncodedClips,
    seed: int,
    *,
    detach: bool = False,
    held: Bool[Tensor, ""] | None = None,
) -> Start:
    """Draw w ~ q(w | x) and z ~ q(z | x), and score them under p(w | c) and p(z_0 | c).

    With a causal encoder, a path that goes on after an observed frame starts from p(w, z_0 | c)
    itself: there the posterior is the prior and both divergences are 0, so that the start cannot
    leak what comes next. With `detach` p(z_0 | c) learns on the posterior's draws, which get no
    gradient from it. Where `held`, q(w | x) is N(0, 1) whatever x, after an observed frame too, so
    that w tells nothing.
    """
    content, states = model.posterior_at_frames(clips.tokens)
    if clips.context.continued is not None:
        content, begun = _continued(model, clips.context, content, states)
        states = states if detach else begun
    if held is not None:
        content = Gaussian(
            torch.where(held, 0.0, content.mean), torch.where(held, 1.0, content.scale)
        )
    w = content.at(normal(seed, clips.serial, Stream.CONTENT, content.mean.shape[1:]))
    eps = normal(seed, clips.serial, Stream.INITIAL, states.mean.shape[1:])
    z = states.at(eps)
    first = Gaussian(states.mean[:, 0], states.scale[:, 0])
    drawn = StartDraw(content, first, w, z[:, 0], eps[:, 0])
    if detach:
        fixed = Gaussian(first.mean.detach(), first.scale.detach())
        drawn = drawn._replace(state=fixed, z=drawn.z.detach())
    divergence = model.start_prior.divergence(drawn, clips.context, seed, clips.serial)
    return Start(w, z, states, divergence)


def _continued(
    model: HistoryModel, history: History, content: Gaussian, states: Gaussian
) -> tuple[Gaussian, Gaussian]:
    """Replace q by p(w | c) and p(z_0 | c) where a path goes on after an observed frame."""
    goes_on = history.continued
    assert goes_on is not None
    prior_content, prior_state = model.start_prior.continued(history)

    def chosen(prior: Tensor, posterior: Tensor) -> Tensor:
        return torch.where(goes_on.view(-1, *[1] * (prior.dim() - 1)), prior, posterior)

    content = Gaussian(*(chosen(p, q) for p, q in zip(prior_content, content, strict=True)))
    first = (chosen(p, q[:, 0]) for p, q in zip(prior_state, states, strict=True))
    whole = (
        torch.cat([start[:, None], rest[:, 1:]], dim=1)
        for start, rest in zip(first, states, strict=True)
    )
    return content, Gaussian(*whole)
