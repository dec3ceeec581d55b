"""What every objective shares: which frames the prior is shown, and means over the clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import Config, ObservationConfig
from sdevid.models.guide import Ahead
from sdevid.models.temporal import History
from sdevid.models.text import Text
from sdevid.models.video_model import VideoModel
from sdevid.sde.noise import Stream, uniform
from sdevid.types import Frames, Serial, Ticks, Video, seconds

PerClip = dict[str, Float[Tensor, " batch"]]


class Window(NamedTuple):
    """The part of each clip that is predicted: from the last observed frame to the end.

    Clips with less to predict are filled up with their last frame, which then counts for nothing.
    """

    place: Int64[Tensor, "batch time"]  # index into the clip
    counts: Bool[Tensor, "batch time"]
    reference: Int64[Tensor, "batch 1"]  # index of the frame at which the state starts

    def cut(self, clip: Tensor) -> Tensor:
        """The window's part of (batch, time, ...)."""
        rows = torch.arange(len(clip), device=clip.device)[:, None]
        return clip[rows, self.place]


class Seen(NamedTuple):
    """A batch as the prior and the posterior are told of it."""

    window: Window
    history: History  # of the observed frames
    full: History  # of all
    ahead: Ahead | None  # the observed frames, where some may lie ahead


class ClipObjective(nn.Module, ABC):
    """The loss of clips given some of their frames.

    Which frames the prior is shown, and whether the caption, is drawn for each clip from its
    serial, so that one model generates freely, carries on, fills in and follows a text.
    """

    model: VideoModel
    bound = True  # whether `terms` hold a bound on the log-likelihood, `elbo`

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Each clip's terms, in nats; and `diffusion`, all values of g used."""

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
        """Means over the clips, in nats a clip; `loss` is the one to back-propagate.

        `context` first frames are observed of every clip, or None to draw which. `tokens` and
        `written` are the captions, as `Text` holds them.
        """
        text = (
            None if tokens is None or written is None else self._kept(Text(tokens, written), serial)
        )
        terms = self.terms(video, ticks, serial, context, text)
        quantiles = terms.pop("diffusion").flatten()
        means = {name: value.mean() for name, value in terms.items()}
        means["loss"] = self.loss(means, kl_weight)
        shares = torch.tensor([0.05, 0.5, 0.95], device=quantiles.device)
        low, middle, high = torch.quantile(quantiles, shares).unbind()
        return means | {"g_q05": low, "g_q50": middle, "g_q95": high}

    def loss(self, means: dict[str, Tensor], kl_weight: float) -> Float[Tensor, ""]:
        """The negative bound with the KLs at a weight, and the consistency terms at theirs."""
        divergence = sum(value for name, value in means.items() if name.startswith("kl_"))
        loss = kl_weight * divergence - means["reconstruction"]
        for name in ("frame_difference", "prior_consistency", "step_halving"):
            if name in means:
                loss = loss + getattr(self.config.consistency, name) * means[name]
        return loss

    def _context(self, serial: Serial, frames: int, fixed: int | None) -> Int64[Tensor, " batch"]:
        if fixed is not None:
            return torch.full_like(serial, fixed)
        settings = self.config.observation
        most = min(settings.max_context, frames - 1)
        free, share = uniform(self.config.seed, serial, Stream.CONTEXT, (2,)).unbind(1)
        known = (1 + (share * most).long()).clamp(max=most)
        return torch.where(free < settings.free_fraction, 0, known)

    def _kept(self, text: Text, serial: Serial) -> Text:
        """The captions, some of them withheld."""
        draw = uniform(self.config.seed, serial, Stream.TEXT, (1,))
        return text._replace(written=text.written & (draw >= self.config.text.drop))

    def _observed(
        self, serial: Serial, frames: int, fixed: int | None
    ) -> Bool[Tensor, "batch time"]:
        """Which frames the prior is shown: none, the first, first and last, or scattered ones."""
        place = torch.arange(frames, device=serial.device)
        initial = place < self._context(serial, frames, fixed)[:, None]
        settings = self.config.observation
        if fixed is not None or not settings.ahead:
            return initial
        draws = uniform(self.config.seed, serial, Stream.CONTEXT, (4 + frames,))
        most = max(1, min(settings.max_context, (frames - 1) // 2))
        first, last = (1 + (draws[:, k : k + 1] * most).long().clamp(max=most - 1) for k in (1, 2))
        ends = (place < first) | (place >= frames - last)
        scattered = draws[:, 4:] < draws[:, 2:3].clamp(min=1 / frames, max=0.5)
        some = (place == (draws[:, 3:4] * frames).long()) | scattered
        kind = draws[:, :1] - settings.free_fraction
        observed = torch.where(kind < settings.ends_fraction, ends, initial)
        beyond = kind - settings.ends_fraction
        observed = torch.where(
            (beyond >= 0) & (beyond < settings.keyframes_fraction), some, observed
        )
        return observed & (kind >= 0)

    @staticmethod
    def _window(observed: Bool[Tensor, "batch time"]) -> Window:
        """From the last of the observed frames with which a clip begins, or from its first."""
        frames = observed.shape[1]
        leading = observed.long().cumprod(1).sum(1, keepdim=True)
        reference = (leading - 1).clamp(0, max(0, frames - 2))
        place = reference + torch.arange(frames, device=observed.device)
        return Window(place.clamp(max=frames - 1), place < frames, reference)

    def look(
        self,
        frames: Frames,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> Seen:
        """What the prior may see and what the posterior sees, in one pass."""
        model = self.model
        observed = self._observed(serial, frames.shape[1], context)
        window = self._window(observed)
        tokens = model.encoder(frames)
        times = seconds(ticks - ticks.gather(1, window.reference))
        seen = torch.cat([observed, torch.ones_like(observed)])
        told = model.embedding(text, len(frames))
        told = None if told is None else told.repeat(2, 1)
        both = model.temporal(tokens.repeat(2, 1, 1, 1), times.repeat(2, 1), seen, told)
        history, full = (History(*part) for part in zip(*(x.chunk(2) for x in both), strict=True))
        ahead = None if model.guide is None else Ahead(history.tokens, ticks, observed)
        return Seen(window, history, full, ahead)


def with_bound(terms: PerClip) -> PerClip:
    """`terms` and `elbo`, the reconstruction less every KL."""
    divergence = sum(value for name, value in terms.items() if name.startswith("kl_"))
    return terms | {"elbo": terms["reconstruction"] - divergence}


def log_likelihood(
    decoded: Frames, real: Frames, observation: ObservationConfig
) -> Float[Tensor, "batch time"]:
    """log p(x_i | decoded frame) in nats, summed over a frame's pixels and channels, float32."""
    apart = ((real - decoded) / observation.scale).flatten(2)
    if observation.likelihood == "laplace":
        return -(apart.abs() + math.log(2 * observation.scale)).sum(2)
    level = math.log(observation.scale) + 0.5 * math.log(2 * math.pi)
    return -(0.5 * apart.square() + level).sum(2)
