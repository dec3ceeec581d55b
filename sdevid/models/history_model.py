"""Models told of a history: frames to a latent path and back, its start, and sampling."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models.backbone import State
from sdevid.models.birth import build_start
from sdevid.models.bridge_conditioning import BridgeConditioning, FutureFrames
from sdevid.models.decoder import build_decoder
from sdevid.models.encoder import EncodedFrames, FrameEncoder, Observed, Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.protocols import Decoder
from sdevid.models.sampling import (
    Chunk,
    Conditioning,
    SamplerConfig,
    points_from_start,
    sent,
    start_tick,
)
from sdevid.models.start import Guidance
from sdevid.models.temporal import History, TemporalEncoder
from sdevid.models.video_model import VideoModel
from sdevid.types import Frames, Ticks, units


class Context(NamedTuple):
    """What the prior is conditioned on, encoded once."""

    history: History
    negative: History | None = None  # of the text that guidance leads away from
    future: FutureFrames | None = None  # observed frames, where some may lie ahead


class PathSegment(NamedTuple):
    """States at some ticks, and what guidance spent on the way to them."""

    states: Float[Tensor, "batch points *latent"]
    nats: Float[Tensor, " batch"]  # 1/2 int |(guided drift - drift) / g|^2 dt


Transition = Callable[[State, Int64[Tensor, "batch points"]], PathSegment]  # ticks on the host


class HistoryModel(VideoModel):
    """Encoder, temporal encoder, decoder and p(w, z_0 | c) around a motion of the latent state."""

    decoder: Decoder
    guide: BridgeConditioning | None
    prior_parts: tuple[str, ...] = ("start_prior", "guide")  # learn through a divergence alone
    guide_pulls = True  # whether a frame ahead also pulls the state, beside shifting the drift

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.sides = config.map_shape if config.sde.latent == "map" else None
        with self.named("encoder"):
            self.encoder = FrameEncoder(config)
        with self.named("temporal"):
            self.temporal = TemporalEncoder(config.encoder, self.cells, self.sides)
        with self.named("start_prior"):
            self.start_prior = build_start(config, self.sides)
        with self.named("decoder"):
            self.decoder = build_decoder(config)
        pulls = self.guide_pulls and config.sde.order == 1
        with self.named("guide"):
            self.guide = (
                BridgeConditioning(config, self.sides, self.cell, pulls=pulls)
                if config.observation.ahead
                else None
            )
        self.text = self.build_text()

    @abstractmethod
    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x), and q(z | x) at the first frame or at all (batch, frames, *latent)."""

    @abstractmethod
    def transition(
        self, w: Float[Tensor, "batch content *cells"], context: Context, sampler: SamplerConfig
    ) -> Transition:
        """Build the map from a state at the first of some ticks to the states at the others."""

    def decode(
        self,
        states: Float[Tensor, "batch time *latent"],
        w: Float[Tensor, "batch content *cells"],
        history: History,
        ticks: Ticks,
    ) -> Frames:
        """Decode the frames of `states` at `ticks`, with the observed frames around them if any."""
        last = None if history.last is None else history.last.at(ticks)
        frames: Frames = self.decoder(states, w, last)
        return frames

    @property
    def cells(self) -> int:
        """Places of a map latent; 1 of a vector."""
        return 1 if self.sides is None else math.prod(self.sides)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the state."""
        return self._laid(self.config.sde.state_size)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of what the noise acts on: the state, or in second order its velocities."""
        return self._laid(self.config.sde.latent_size)

    def _laid(self, size: int) -> tuple[int, ...]:
        return (size,) if self.sides is None else (size, *self.sides)

    def _chunks(
        self,
        ticks: Ticks,
        sampler: SamplerConfig,
        conditioning: Conditioning,
        size: int,
    ) -> Iterator[Chunk]:
        is_guided = sampler.guidance_scale != 1
        points = points_from_start(ticks, conditioning.frame_ticks)
        ticks, conditioning = sent(ticks, conditioning, next(self.parameters()).device)
        context, _ = self.encode_context(ticks, conditioning, is_guided)
        guidance = Guidance(context.negative, sampler.guidance_scale, sampler.temperature)
        w, z, nats = self.start_prior.sample(
            context.history, sampler.seed, sampler.serials(ticks), guidance
        )
        transition, decoder_state = self.transition(w, context, sampler), None
        for first in range(0, ticks.shape[1], size):
            path, last = transition(z, points[:, first : first + size + 1]), context.history.last
            last = None if last is None else last.at(ticks[:, first : first + size])
            frames, decoder_state = self.decoder.carry_on(path.states, w, decoder_state, last)
            z = path.states[:, -1]
            yield Chunk(frames, nats + path.nats)
            nats = torch.zeros_like(nats)

    def encode_context(
        self, ticks: Ticks, conditioning: Conditioning, is_guided: bool
    ) -> tuple[Context, Int64[Tensor, "batch 1"]]:
        """Encode what the prior may see; also return the tick at which the state starts."""
        first = ticks[:, :1]
        if conditioning.frames is None or conditioning.frame_ticks is None:
            encoded, times = EncodedFrames(self._no_tokens(ticks)), ticks[:, :0]
            reference, last = first, None
        else:
            times = conditioning.frame_ticks
            encoded = self.encoder(conditioning.frames, units(times - times[:, :1]))
            reference, index, is_before = start_tick(first, times)
            last = self.encoder.last_frame(encoded, index, is_before, Observed.every(times))
        tokens = encoded.tokens
        is_seen = torch.ones_like(times, dtype=torch.bool)
        at, count = units(times - reference), len(ticks)
        history = self.temporal(tokens, at, is_seen, self.embedding(conditioning.text, count))
        history = history._replace(last=last)
        negative = None
        if is_guided and self.text is not None:
            caption = self.embedding(conditioning.negative_text, count)
            negative = self.temporal(tokens, at, is_seen, caption)
        future = None
        if self.guide is not None and times.shape[1]:
            future = FutureFrames(history.tokens, times, is_seen)
        return Context(history, negative, future), reference

    def _no_tokens(self, ticks: Ticks) -> Float[Tensor, "batch 0 cells features"]:
        shape = (len(ticks), 0, self.cells, self.config.encoder.features)
        return torch.zeros(shape, device=ticks.device)
