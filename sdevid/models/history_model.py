"""Models told of a history: frames to a latent path and back, its start, and sampling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models.backbone import State
from sdevid.models.birth import build_start
from sdevid.models.decoder import build_decoder
from sdevid.models.encoder import FrameEncoder, Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.guide import Ahead, Guide
from sdevid.models.protocols import Decoder
from sdevid.models.start import Guidance
from sdevid.models.temporal import History, TemporalEncoder
from sdevid.models.video_model import WINDOW, Given, Made, VideoModel, Walk
from sdevid.types import Ticks, units


class Known(NamedTuple):
    """What the prior may see, worked out once."""

    history: History
    other: History | None = None  # what guidance leads away from
    ahead: Ahead | None = None  # observed frames, where some may lie ahead


class Moved(NamedTuple):
    """States at some ticks, and what guidance spent on the way to them."""

    states: Float[Tensor, "batch points *latent"]
    nats: Float[Tensor, " batch"]  # 1/2 int |(guided drift - drift) / g|^2 dt


Mover = Callable[[State, Int64[Tensor, "batch points"]], Moved]


class HistoryModel(VideoModel):
    """Encoder, temporal encoder, decoder and p(w, z_0 | c) around a motion of the latent state."""

    decoder: Decoder
    guide: Guide | None
    prior_parts: tuple[str, ...] = ("start_prior", "guide")  # learn through a divergence alone
    guide_pulls = True  # whether a frame ahead also pulls the state, beside shifting the drift

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.side = config.encoder.map_size if config.sde.latent == "map" else None
        with self.named("encoder"):
            self.encoder = FrameEncoder(config)
        with self.named("temporal"):
            self.temporal = TemporalEncoder(config.encoder, self.cells)
        with self.named("start_prior"):
            self.start_prior = build_start(config, self.side)
        with self.named("decoder"):
            self.decoder = build_decoder(config)
        with self.named("guide"):
            self.guide = (
                Guide(config, self.side, self.cell, pulls=self.guide_pulls)
                if config.observation.ahead
                else None
            )
        self.text = self.build_text()

    @abstractmethod
    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Return q(w | x), and q(z | x) at the first frame or at all (batch, frames, *latent)."""

    @abstractmethod
    def mover(self, w: Float[Tensor, "batch content"], known: Known, walk: Walk) -> Mover:
        """What takes a state at the first of some ticks to the states at the others."""

    @property
    def cells(self) -> int:
        """Places of a map latent; 1 of a vector."""
        return 1 if self.side is None else self.side**2

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of the state."""
        return self._laid(self.config.sde.state_size)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Of what the noise acts on: the state, or the velocities of one of second order."""
        return self._laid(self.config.sde.latent_size)

    def _laid(self, size: int) -> tuple[int, ...]:
        return (size,) if self.side is None else (size, self.side, self.side)

    @torch.no_grad()
    def windows(
        self, ticks: Ticks, walk: Walk, given: Given | None = None, window: int = WINDOW
    ) -> Iterator[Made]:
        """`generate`, `window` frames at a time: the state is carried on, so there is no seam."""
        known, reference = self._known(ticks, given or Given(), walk.guidance_scale != 1)
        guidance = Guidance(known.other, walk.guidance_scale, walk.temperature)
        w, z, spent = self.start_prior.sample(known.history, walk.seed, walk.serial, guidance)
        move, carried = self.mover(w, known, walk), None
        for first in range(0, ticks.shape[1], window):
            part = ticks[:, first : first + window]
            moved = move(z, torch.cat([reference, part], dim=1))
            frames, carried = self.decoder.carry_on(moved.states, w, carried)
            z, reference = moved.states[:, -1], part[:, -1:]
            yield Made(frames, spent + moved.nats)
            spent = torch.zeros_like(spent)

    def _known(
        self, ticks: Ticks, given: Given, guided: bool
    ) -> tuple[Known, Int64[Tensor, "batch 1"]]:
        """What the prior may see, and the tick at which the state starts."""
        first = ticks[:, :1]
        if given.context is None or given.context_ticks is None:
            tokens, times = self._no_tokens(ticks), ticks[:, :0]
            reference = first
        else:
            tokens, times = self.encoder(given.context), given.context_ticks
            before = times.where(times <= first, -1).amax(1, keepdim=True)
            reference = before.where(before >= 0, first)
        seen = torch.ones_like(times, dtype=torch.bool)
        at, count = units(times - reference), len(ticks)
        history = self.temporal(tokens, at, seen, self.embedding(given.text, count))
        other = None
        if guided and self.text is not None:
            other = self.temporal(tokens, at, seen, self.embedding(given.negative, count))
        ahead = None if self.guide is None else Ahead(history.tokens, times, seen)
        return Known(history, other, ahead if times.shape[1] else None), reference

    def _no_tokens(self, ticks: Ticks) -> Float[Tensor, "batch 0 cells features"]:
        shape = (len(ticks), 0, self.cells, self.config.encoder.features)
        return torch.zeros(shape, device=ticks.device)
