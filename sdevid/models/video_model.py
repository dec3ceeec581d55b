"""What every kind of model shares: frames to a latent path and back, its start, and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.backbone import State
from sdevid.models.birth import build_start
from sdevid.models.decoder import build_decoder
from sdevid.models.encoder import FrameEncoder, Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.guide import Ahead, Guide
from sdevid.models.initial_weights import initial_weights
from sdevid.models.likelihood import build_likelihood
from sdevid.models.protocols import Decoder
from sdevid.models.start import Guidance
from sdevid.models.temporal import History, TemporalEncoder
from sdevid.models.text import Text, TextEncoder
from sdevid.sde.noise import Brownian
from sdevid.types import TICKS_PER_SECOND, Frames, Serial, Ticks, seconds

WINDOW = 64  # frames generated before they leave, which bounds memory


class Walk(NamedTuple):
    """How a path is walked in sampling."""

    seed: int
    serial: Serial
    steps_per_frame: int | None = None  # None: steps as long as in training, at most
    temperature: float = 1.0  # scales the noise of the birth and along the path
    solver: str = "euler_maruyama"
    bridge: Literal["interpolant", "follmer"] | None = None  # diffusion of follmer's bridge
    guidance_scale: float = 1.0  # of birth and drift, away from what no text, or another, gives


class Given(NamedTuple):
    """What a video is conditioned on."""

    context: Frames | None = None  # observed frames
    context_ticks: Ticks | None = None  # rising
    text: Text | None = None
    negative: Text | None = None  # what guidance leads away from; None: no text


class Known(NamedTuple):
    """What the prior may see, worked out once."""

    history: History
    other: History | None = None  # what guidance leads away from
    ahead: Ahead | None = None  # observed frames, where some may lie ahead


class Moved(NamedTuple):
    """States at some ticks, and what guidance spent on the way to them."""

    states: Float[Tensor, "batch points *latent"]
    nats: Float[Tensor, " batch"]  # 1/2 int |(guided drift - drift) / g|^2 dt


class Made(NamedTuple):
    """A part of a video."""

    frames: Frames
    nats: Float[Tensor, " batch"]  # spent by guidance


Mover = Callable[[State, Int64[Tensor, "batch points"]], Moved]


class VideoModel(nn.Module, ABC):
    """Encoder, temporal encoder, decoder and p(w, z_0 | c) around a motion of the latent state."""

    decoder: Decoder
    guide: Guide | None
    text: TextEncoder | None
    prior_parts: tuple[str, ...] = ("start_prior", "guide")  # learn through a divergence alone
    guide_pulls = True  # whether a frame ahead also pulls the state, beside shifting the drift

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.side = config.encoder.map_size if config.sde.latent == "map" else None
        self.likelihood = build_likelihood(config.observation)
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
        with self.named("text"):
            self.text = TextEncoder(config) if config.text.encoder != "none" else None

    def named(self, part: str) -> AbstractContextManager[None]:
        """Give the part built inside initial weights that its name and the seed decide alone."""
        return initial_weights(self.config.seed, part)

    @abstractmethod
    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Return q(w | x), and q(z | x) at the first frame or at all (batch, frames, *latent)."""

    @abstractmethod
    def mover(self, w: Float[Tensor, "batch content"], known: Known, walk: Walk) -> Mover:
        """What takes a state at the first of some ticks to the states at the others."""

    @property
    def cell(self) -> int:
        """Ticks of a solver step at the training frame rate; also the Brownian path's cell."""
        return max(1, round(TICKS_PER_SECOND / (self.config.fps * self.config.sde.steps_per_frame)))

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

    def parts(self) -> dict[str, nn.Module]:
        """The model's parts by name, for counting parameters."""
        return dict(self.named_children())

    def prior_parameter_names(self) -> set[str]:
        """Parameters that learn through a divergence alone."""
        chosen = tuple(f"{part}." for part in self.prior_parts)
        return {name for name, _ in self.named_parameters() if name.startswith(chosen)}

    def brownian(self, seed: int, serial: Serial) -> Brownian:
        """The Brownian path that drives the clip of each serial."""
        return Brownian(seed, serial, self.noise_shape, self.cell)

    def sample(
        self,
        ticks: Ticks,
        *,
        seed: int,
        serial: Serial,
        context: Frames | None = None,
        context_ticks: Ticks | None = None,
        steps_per_frame: int | None = None,
        temperature: float = 1.0,
    ) -> Frames:
        """Video at `ticks`, generated freely or carried on from `context`.

        The state starts at the last context frame that does not lie after the first of `ticks`,
        or there. `steps_per_frame` solver steps lie between two frames; without it, steps are as
        long as in training, at most. `temperature` scales the noise of a birth and along the path.
        The same seed and serial give the same video, whatever the batch around it.
        """
        walk = Walk(seed, serial, steps_per_frame, temperature)
        return self.generate(ticks, walk, Given(context, context_ticks)).frames

    def generate(self, ticks: Ticks, walk: Walk, given: Given | None = None) -> Made:
        """`sample` with every option of `walk` and `given`."""
        parts = list(self.windows(ticks, walk, given))
        nats = torch.stack([part.nats for part in parts]).sum(0)
        return Made(torch.cat([part.frames for part in parts], dim=1), nats)

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
        at, count = seconds(times - reference), len(ticks)
        history = self.temporal(tokens, at, seen, self.embedding(given.text, count))
        other = None
        if guided and self.text is not None:
            other = self.temporal(tokens, at, seen, self.embedding(given.negative, count))
        ahead = None if self.guide is None else Ahead(history.tokens, times, seen)
        return Known(history, other, ahead if times.shape[1] else None), reference

    def embedding(self, text: Text | None, count: int) -> Float[Tensor, "batch features"] | None:
        """Of the captions; of none where there is no `text`; None for a model without text."""
        if self.text is None:
            return None
        if text is None:
            return self.text.null.expand(count, -1)
        found: Tensor = self.text(text)
        return found

    def _no_tokens(self, ticks: Ticks) -> Tokens:
        shape = (len(ticks), 0, self.cells, self.config.encoder.features)
        return torch.zeros(shape, device=ticks.device)
