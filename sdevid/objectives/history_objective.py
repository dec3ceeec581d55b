"""What the objectives of models told of a history share: encoding, start and score of clips."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdevid.models.bridge_conditioning import FutureFrames
from sdevid.models.consistency import frame_difference
from sdevid.models.encoder import Observed, Tokens
from sdevid.models.history_model import HistoryModel
from sdevid.models.temporal import History
from sdevid.objectives.clip_objective import ClipObjective, Clips, PerClip, divergence
from sdevid.objectives.masking import Mask
from sdevid.objectives.start import Start, draw_start
from sdevid.objectives.window import Window
from sdevid.types import Batch, Frames, Serial, Ticks, present_frames, units


class EncodedClips(NamedTuple):
    """A batch of clips as the prior and the posterior see it; `Window` says which frames."""

    frames: Frames  # of the window
    ticks: Ticks  # of the window
    serial: Serial
    window: Window
    tokens: Tokens  # of the window's frames, from all frames: what the posterior sees
    context: History  # from the observed frames alone: what the prior sees
    future: FutureFrames | None  # the observed frames, where some may lie ahead


class PathTerms(NamedTuple):
    """The posterior's states and what an objective asks of the path through them."""

    states: Float[Tensor, "batch time *latent"]  # at the window's frames
    terms: PerClip  # nats; those called kl_* count with the KL weight
    diffusion: Float[Tensor, "*any"]  # values of g used, for the record


class HistoryObjective(ClipObjective):
    """A path that begins at the last observed frame and passes through the rest of the clip."""

    model: HistoryModel
    detach_start = False  # whether p(z_0 | c) learns on draws that do not move for it
    num_observed: list[int] | None = None  # frames of each clip, where the host has counted them

    @contextmanager
    def reading(self, batch: Batch) -> Iterator[None]:
        """Use, inside, what is read of `batch` on the host; see `ClipObjective`."""
        with super().reading(batch):
            if self.config.encoder.pack:
                observed = self.observed(batch.serial, batch.video.shape[1], None)
                self.num_observed = (observed & present_frames(batch.video)).sum(1).tolist()
            try:
                yield
            finally:
                self.num_observed = None

    @abstractmethod
    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Draw the posterior's path from `start` through the window and score it."""

    def clip_terms(self, clips: Clips) -> PerClip:
        """Compute each clip's terms in nats, `elbo` where there is a bound, and `diffusion`."""
        encoded = self.encode(clips)
        start = draw_start(
            self.model, encoded, self.config.seed, detach=self.detach_start, held=self._held()
        )
        path = self.path(encoded, start)
        terms = self.score(encoded, path.states, start.content) | start.divergence | path.terms
        if self.config.capabilities.has_bound:
            terms["elbo"] = terms["reconstruction"] - divergence(terms)
        return terms | {"diffusion": path.diffusion.detach()}

    def _held(self) -> Bool[Tensor, ""] | None:
        """Tell whether w may not speak yet (`sde.content_from`); None where it always may."""
        share = self.config.sde.content_from
        return self.progress < share if share else None

    def encode(self, clips: Clips) -> EncodedClips:
        """Encode what the prior may see and what the posterior sees."""
        model, (video, ticks, serial, context, text) = self.model, clips
        frames = model.pictures.drawn(video, serial)
        present = present_frames(frames)
        observed = self.observed(serial, frames.shape[1], context) & present
        window = Window.after(observed)
        times = units(ticks - ticks.gather(1, window.reference))
        encoded = model.encoder(frames, times)
        caption = model.embedding(text, len(frames))
        prior, posterior = self._histories(encoded.tokens, times, observed, present, caption)
        seen = Observed(observed, ticks)
        last = model.encoder.last_frame(encoded, window.reference[:, 0], observed[:, 0], seen)
        prior = prior._replace(last=last)
        future = None if model.guide is None else FutureFrames(prior.tokens, ticks, observed)
        return EncodedClips(
            frames=window.cut(frames),
            ticks=window.cut(ticks),
            serial=serial,
            window=window,
            tokens=window.cut(posterior.tokens),
            context=prior,
            future=future,
        )

    def _histories(
        self, tokens: Tokens, times: Tensor, observed: Mask, present: Mask, caption: Tensor | None
    ) -> tuple[History, History]:
        """Summarise the observed frames, and all that are present, of each clip.

        A causal encoder does both in one pass where observed frames come first: the token of the
        last of them has seen no other frame.
        """
        model = self.model
        if self.config.encoder.causal and not self.config.observation.ahead:
            once = model.temporal(tokens, times, observed, caption, visible=present)
            return once, once
        if self.config.encoder.pack:
            lengths = self.num_observed or observed.sum(1).tolist()
            prior = model.temporal(tokens, times, observed, caption, lengths=lengths)
            return prior, model.temporal(tokens, times, present, caption)
        twice = None if caption is None else caption.repeat(2, 1)
        is_seen = torch.cat([observed, present])
        both = model.temporal(tokens.repeat(2, 1, 1, 1), times.repeat(2, 1), is_seen, twice)
        halves: tuple[History, History] = both.halves()
        return halves

    def score(
        self, clips: EncodedClips, states: Float[Tensor, "batch time *latent"], w: Tensor
    ) -> PerClip:
        """Compute `reconstruction`, log p(x | w, z) over the window, and `frame_difference`."""
        decoded = self.model.decode(states, w, clips.context, clips.ticks)
        valid = clips.window.valid
        log_prob = self.model.likelihood.log_prob(decoded, clips.frames)
        terms = {"reconstruction": (log_prob * valid).sum(1)}
        if self.config.consistency.frame_difference:
            real = torch.where(clips.frames.isnan(), decoded.detach(), clips.frames)
            terms["frame_difference"] = frame_difference(decoded, real, valid)
        return terms
