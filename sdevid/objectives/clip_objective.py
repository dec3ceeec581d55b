"""The way from a batch of clips to its loss, which every objective takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.likelihood import hold_scale
from sdevid.models.text import Text
from sdevid.models.video_model import VideoModel
from sdevid.objectives.masking import Mask, drop_captions, first_frames, sample_observed
from sdevid.sde import noise
from sdevid.sde.draw_plan import DrawPlan
from sdevid.types import Batch, Serial, Ticks, Video

PerClip = dict[str, Float[Tensor, " batch"]]


class Clips(NamedTuple):
    """A batch as an objective takes it: video, times, serials, captions."""

    video: Video
    ticks: Ticks
    serial: Serial
    context: int | None = None  # first frames observed of every clip; None draws which
    text: Text | None = None


class ClipObjective(nn.Module, ABC):
    """The loss of clips given some of their frames.

    Whether the prior is conditioned on the caption, and on which frames, is drawn for each clip
    from its serial, so that one model generates freely, carries on, fills in and follows a text.
    """

    def __init__(self, config: Config, model: VideoModel) -> None:
        super().__init__()
        self.config, self.model = config, model
        self.draw_plan = DrawPlan()
        self.progress: Tensor  # share of the run done, for terms that come in over it
        self.register_buffer("progress", torch.ones(()), persistent=False)
        self.quantiles: Tensor
        self.register_buffer("quantiles", torch.tensor([0.05, 0.5, 0.95]), persistent=False)

    @abstractmethod
    def clip_terms(self, clips: Clips) -> PerClip:
        """Compute each clip's terms in nats, `elbo` where there is a bound, and `diffusion`."""

    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Compute `clip_terms` of a batch.

        The first `context` frames of every clip are observed; None draws which.
        """
        return self.clip_terms(Clips(video, ticks, serial, context, text))

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[None]:
        """Use, inside, what is read of `batch` on the host: no device is waited for."""
        with self.model.reading(batch.ticks):
            yield

    def prior_parameter_names(self) -> set[str]:
        """Name the parameters of this module that learn through a divergence alone."""
        return {f"model.{name}" for name in self.model.prior_parameter_names()}

    def forward(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        kl_weight: float | Tensor,
        context: int | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Average the terms over the clips, in nats a clip; `loss` is the one to back-propagate.

        The first `context` frames of every clip are observed; None draws which. `tokens` and `mask`
        are the captions, as `Text` holds them.
        """
        hold_scale(self.model.likelihood, held=self.progress < self.config.kl_warmup_fraction)
        text, seed = None, self.config.seed
        with ExitStack() if noise.on_host(serial) else self.draw_plan.step(seed, serial):
            if tokens is not None and mask is not None:
                text = drop_captions(Text(tokens, mask), self.config.text.drop, seed, serial)
            terms = self.terms(video, ticks, serial, context, text)
        diffusion = terms.pop("diffusion").flatten()
        means = {name: value.mean() for name, value in terms.items()}
        means["loss"] = self.loss(means, kl_weight)
        per_second = diffusion * self.config.time_unit**-0.5  # per sqrt(second)
        low, middle, high = torch.quantile(per_second, self.quantiles).unbind()
        return means | {"g_q05": low, "g_q50": middle, "g_q95": high}

    def loss(self, means: dict[str, Tensor], kl_weight: float | Tensor) -> Float[Tensor, ""]:
        """Compute the negative bound with weighted KLs, plus the weighted consistency terms."""
        loss = kl_weight * divergence(means) - means["reconstruction"]
        for name in ("frame_difference", "prior_consistency", "step_halving", "futures"):
            if name in means:
                loss = loss + getattr(self.config.consistency, name) * means[name]
        return loss

    def observed(self, serial: Serial, frames: int, context: int | None) -> Mask:
        """Choose the frames that the prior sees: the first `context`, or drawn ones."""
        if context is not None:
            return first_frames(serial, frames, context)
        return sample_observed(self.config.observation, self.config.seed, serial, frames)


def divergence(terms: dict[str, Tensor]) -> Tensor:
    """Sum the terms called kl_*."""
    named = [value for name, value in terms.items() if name.startswith("kl_")]
    return torch.stack(named).sum(0)
