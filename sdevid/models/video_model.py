"""What every model of video offers to training, sampling, export and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.initial_weights import initial_weights
from sdevid.models.likelihood import build_likelihood
from sdevid.models.text import Text, TextEncoder
from sdevid.sde.noise import Brownian
from sdevid.types import Frames, Serial, Ticks

WINDOW = 64  # frames generated before they leave, which bounds memory


class Walk(NamedTuple):
    """How a path is walked in sampling."""

    seed: int
    serial: Serial
    steps_per_frame: int | None = None  # None: steps as long as in training, at most
    temperature: float = 1.0  # scales the noise of the birth and along the path
    solver: str | None = None  # None: the training's
    bridge: Literal["interpolant", "follmer"] | None = None  # diffusion of follmer's bridge
    guidance_scale: float = 1.0  # of birth and drift, away from what no text, or another, gives
    tolerance: float | None = None  # of adaptive steps


class Given(NamedTuple):
    """What a video is conditioned on."""

    context: Frames | None = None  # observed frames
    context_ticks: Ticks | None = None  # rising
    text: Text | None = None
    negative: Text | None = None  # what guidance leads away from; None: no text


class Made(NamedTuple):
    """A part of a video."""

    frames: Frames
    nats: Float[Tensor, " batch"]  # spent by guidance


class VideoModel(nn.Module, ABC):
    """A latent path that is generated and decoded: given frames, text, or nothing.

    A subclass builds its parts inside `named`, and a text encoder by `build_text`, which `text` is.
    """

    text: TextEncoder | None
    prior_parts: tuple[str, ...]  # parameters by prefix that learn through a divergence alone

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.likelihood = build_likelihood(config.observation)

    @property
    @abstractmethod
    def noise_shape(self) -> tuple[int, ...]:
        """Of what the noise acts on."""

    @abstractmethod
    def windows(
        self, ticks: Ticks, walk: Walk, given: Given | None = None, window: int = WINDOW
    ) -> Iterator[Made]:
        """`generate`, `window` frames at a time: the state is carried on, so there is no seam."""

    def notes(self) -> tuple[str, ...]:
        """What whoever samples is told of this model, such as a change after training."""
        return ()

    def named(self, part: str) -> AbstractContextManager[None]:
        """Give the part built inside initial weights that its name and the seed decide alone."""
        return initial_weights(self.config.seed, part)

    @property
    def cell(self) -> int:
        """Ticks of a solver step at the training frame rate; also the Brownian path's cell."""
        return self.config.step_ticks(self.config.sde.steps_per_frame)

    def build_text(self) -> TextEncoder | None:
        """The text encoder of a model that is told captions."""
        with self.named("text"):
            return TextEncoder(self.config) if self.config.text.encoder != "none" else None

    def parts(self) -> dict[str, nn.Module]:
        """The model's parts by name, for counting parameters."""
        return dict(self.named_children())

    def prior_parameter_names(self) -> set[str]:
        """Parameters that learn through a divergence alone."""
        chosen = tuple(f"{part}." for part in self.prior_parts)
        return {name for name, _ in self.named_parameters() if f"{name}.".startswith(chosen)}

    def brownian(self, seed: int, serial: Serial) -> Brownian:
        """The Brownian path that drives the clip of each serial."""
        return Brownian(seed, serial, self.noise_shape, self.cell)

    def sample(
        self,
        ticks: Ticks,
        *,
        seed: int,
        serial: Serial,
        context: Float[Tensor, "batch observed channels height width"] | None = None,
        context_ticks: Int64[Tensor, "batch observed"] | None = None,
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

    def embedding(self, text: Text | None, count: int) -> Float[Tensor, "batch features"] | None:
        """Of the captions; of none where there is no `text`; None for a model without text."""
        if self.text is None:
            return None
        if text is None:
            return self.text.null.expand(count, -1)
        found: Tensor = self.text(text)
        return found
