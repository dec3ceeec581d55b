"""What every objective shares: which frames the prior is shown, and means over the clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import Config, ObservationConfig
from sdevid.models.encoder import Tokens
from sdevid.models.temporal import History
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


class ClipObjective(nn.Module, ABC):
    """The loss of clips given their first frames.

    How many frames the prior is shown is drawn for each clip from its serial, so that one model
    generates freely and carries on from initial frames.
    """

    model: VideoModel
    bound = True  # whether `terms` hold a bound on the log-likelihood, `elbo`

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def terms(
        self, video: Video, ticks: Ticks, serial: Serial, context: int | None = None
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
    ) -> dict[str, Float[Tensor, ""]]:
        """Means over the clips, in nats a clip; `loss` is the one to back-propagate.

        `context` observed frames for every clip, or None to draw their number.
        """
        terms = self.terms(video, ticks, serial, context)
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
        if "frame_difference" in means:
            loss = loss + self.config.consistency.frame_difference * means["frame_difference"]
        return loss

    def _context(self, serial: Serial, frames: int, fixed: int | None) -> Int64[Tensor, " batch"]:
        if fixed is not None:
            return torch.full_like(serial, fixed)
        settings = self.config.observation
        most = min(settings.max_context, frames - 1)
        free, share = uniform(self.config.seed, serial, Stream.CONTEXT, (2,)).unbind(1)
        known = (1 + (share * most).long()).clamp(max=most)
        return torch.where(free < settings.free_fraction, 0, known)

    @staticmethod
    def _window(known: Int64[Tensor, " batch"], frames: int) -> Window:
        reference = (known - 1).clamp(min=0)[:, None]
        place = reference + torch.arange(frames, device=known.device)
        return Window(place.clamp(max=frames - 1), place < frames, reference)

    def _histories(
        self, tokens: Tokens, ticks: Ticks, known: Tensor, window: Window
    ) -> tuple[History, History]:
        """What the prior may see and what the posterior sees, in one pass."""
        times = seconds(ticks - ticks.gather(1, window.reference))
        observed = torch.arange(ticks.shape[1], device=ticks.device) < known[:, None]
        seen = torch.cat([observed, torch.ones_like(observed)])
        both = self.model.temporal(tokens.repeat(2, 1, 1, 1), times.repeat(2, 1), seen)
        history, full = zip(*(part.chunk(2) for part in both), strict=True)
        return History(*history), History(*full)


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
