"""The way from a batch of clips to its loss, which every objective takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.consistency import frame_difference
from sdevid.models.encoder import Tokens
from sdevid.models.guide import Ahead
from sdevid.models.temporal import History
from sdevid.models.text import Text
from sdevid.models.video_model import VideoModel
from sdevid.objectives.masking import drop_captions, first_frames, sample_observed
from sdevid.objectives.start import Start, draw_start
from sdevid.objectives.window import Window
from sdevid.types import Frames, Serial, Ticks, Video, as_frames, seconds

PerClip = dict[str, Float[Tensor, " batch"]]


class EncodedClips(NamedTuple):
    """A batch of clips as the prior and the posterior see it; `Window` says which frames."""

    frames: Frames  # of the window
    ticks: Ticks  # of the window
    serial: Serial
    window: Window
    tokens: Tokens  # of the window's frames, from all frames: what the posterior sees
    context: History  # from the observed frames alone: what the prior sees
    ahead: Ahead | None  # the observed frames, where some may lie ahead


class PathTerms(NamedTuple):
    """The posterior's states and what an objective asks of the path through them."""

    states: Float[Tensor, "batch time *latent"]  # at the window's frames
    terms: PerClip  # nats; those called kl_* count with the KL weight
    diffusion: Float[Tensor, "*any"]  # values of g used, for the record


class ClipObjective(nn.Module, ABC):
    """The loss of clips given some of their frames.

    Which frames the prior is shown, and whether the caption, is drawn for each clip from its
    serial, so that one model generates freely, carries on, fills in and follows a text.
    """

    detach_start = False  # whether p(z_0 | c) learns on draws that do not move for it

    def __init__(self, config: Config, model: VideoModel) -> None:
        super().__init__()
        self.config, self.model = config, model

    @abstractmethod
    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Lead the posterior's path from `start` through the window and score it."""

    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Return each clip's terms in nats, with `elbo` where there is a bound; and `diffusion`.

        `context` first frames are observed of every clip, or None to draw which.
        """
        clips = self.encode(video, ticks, serial, context, text)
        start = draw_start(self.model, clips, self.config.seed, detach=self.detach_start)
        path = self.path(clips, start)
        terms = self.score(clips, path.states, start.content) | start.divergence | path.terms
        if self.config.capabilities.has_bound:
            terms["elbo"] = terms["reconstruction"] - _divergence(terms)
        return terms | {"diffusion": path.diffusion.detach()}

    def encode(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> EncodedClips:
        """Encode what the prior may see and what the posterior sees, in one pass."""
        model, frames = self.model, as_frames(video)
        observed = self._observed(serial, frames.shape[1], context)
        window = Window.after(observed)
        tokens = model.encoder(frames)
        times = seconds(ticks - ticks.gather(1, window.reference))
        is_seen = torch.cat([observed, torch.ones_like(observed)])
        caption = model.embedding(text, len(frames))
        caption = None if caption is None else caption.repeat(2, 1)
        both = model.temporal(tokens.repeat(2, 1, 1, 1), times.repeat(2, 1), is_seen, caption)
        prior, posterior = both.halves()
        ahead = None if model.guide is None else Ahead(prior.tokens, ticks, observed)
        return EncodedClips(
            frames=window.cut(frames),
            ticks=window.cut(ticks),
            serial=serial,
            window=window,
            tokens=window.cut(posterior.tokens),
            context=prior,
            ahead=ahead,
        )

    def score(
        self, clips: EncodedClips, states: Float[Tensor, "batch time *latent"], w: Tensor
    ) -> PerClip:
        """Return `reconstruction`, log p(x | w, z) over the window, and `frame_difference`."""
        decoded, valid = self.model.decoder(states, w), clips.window.valid
        log_prob = self.model.likelihood.log_prob(decoded, clips.frames)
        terms = {"reconstruction": (log_prob * valid).sum(1)}
        if self.config.consistency.frame_difference:
            terms["frame_difference"] = frame_difference(decoded, clips.frames, valid)
        return terms

    def prior_parameter_names(self) -> set[str]:
        """Names, among this module's, of the parameters that learn through a divergence alone."""
        return {f"model.{name}" for name in self.model.prior_parameter_names()}

    def forward(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        kl_weight: float,
        context: int | None = None,
        tokens: Tensor | None = None,
        written: Tensor | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return means over the clips, in nats a clip; `loss` is the one to back-propagate.

        `context` first frames are observed of every clip, or None to draw which. `tokens` and
        `written` are the captions, as `Text` holds them.
        """
        text = None
        if tokens is not None and written is not None:
            drop, seed = self.config.text.drop, self.config.seed
            text = drop_captions(Text(tokens, written), drop, seed, serial)
        terms = self.terms(video, ticks, serial, context, text)
        quantiles = terms.pop("diffusion").flatten()
        means = {name: value.mean() for name, value in terms.items()}
        means["loss"] = self.loss(means, kl_weight)
        shares = torch.tensor([0.05, 0.5, 0.95], device=quantiles.device)
        low, middle, high = torch.quantile(quantiles, shares).unbind()
        return means | {"g_q05": low, "g_q50": middle, "g_q95": high}

    def loss(self, means: dict[str, Tensor], kl_weight: float) -> Float[Tensor, ""]:
        """Return the negative bound with the KLs at a weight, and consistency terms at theirs."""
        loss = kl_weight * _divergence(means) - means["reconstruction"]
        for name in ("frame_difference", "prior_consistency", "step_halving"):
            if name in means:
                loss = loss + getattr(self.config.consistency, name) * means[name]
        return loss

    def _observed(self, serial: Serial, frames: int, context: int | None) -> Tensor:
        if context is not None:
            return first_frames(serial, frames, context)
        return sample_observed(self.config.observation, self.config.seed, serial, frames)


def _divergence(terms: dict[str, Tensor]) -> Tensor:
    """Sum the terms called kl_*."""
    named = [value for name, value in terms.items() if name.startswith("kl_")]
    return torch.stack(named).sum(0)
