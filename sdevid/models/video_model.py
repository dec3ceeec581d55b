"""What every kind of model shares: frames to a latent path and back, its start, and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.backbone import State
from sdevid.models.decoder import FrameDecoder
from sdevid.models.encoder import FrameEncoder, Tokens
from sdevid.models.start import PriorStart
from sdevid.models.temporal import History, TemporalEncoder
from sdevid.sde.noise import Brownian, Stream, normal, uniform
from sdevid.types import TICKS_PER_SECOND, Frames, Serial, Ticks, seconds

WINDOW = 64  # frames generated before they leave, which bounds memory

Mover = Callable[[State, Int64[Tensor, "batch points"]], Float[Tensor, "batch points *latent"]]


class Walk(NamedTuple):
    """How a path is walked in sampling."""

    seed: int
    serial: Serial
    steps_per_frame: int | None = None  # None: steps as long as in training, at most
    temperature: float = 1.0  # scales the noise along the path
    solver: str = "euler_maruyama"
    bridge: Literal["interpolant", "follmer"] | None = None  # diffusion of follmer's bridge


class VideoModel(nn.Module, ABC):
    """Encoder, temporal encoder, decoder and p(w, z_0 | c) around a motion of the latent state."""

    decoder: FrameDecoder
    prior_parts: tuple[str, ...] = ("start_prior",)  # what learns through a divergence alone

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.side = config.encoder.map_size if config.sde.latent == "map" else None
        self.encoder = FrameEncoder(config)
        self.temporal = TemporalEncoder(config.encoder)
        self.start_prior = PriorStart(config, self.side)

    @abstractmethod
    def mover(self, w: Float[Tensor, "batch content"], history: History, walk: Walk) -> Mover:
        """What takes a state at the first of some ticks to the states at the others."""

    @property
    def cell(self) -> int:
        """Ticks of a solver step at the training frame rate; also the Brownian path's cell."""
        return max(1, round(TICKS_PER_SECOND / (self.config.fps * self.config.sde.steps_per_frame)))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        size = self.config.sde.latent_size
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
        return Brownian(seed, serial, self.latent_shape, self.cell)

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
        solver: str = "euler_maruyama",
        bridge: Literal["interpolant", "follmer"] | None = None,
    ) -> Frames:
        """Video at `ticks`, generated freely or carried on from `context`.

        The state starts at the last context frame, or at the first of `ticks`; none of `ticks`
        lies before it. `steps_per_frame` solver steps lie between two frames; without it, steps
        are as long as in training, at most. `temperature` scales the noise along the path. The
        same seed and serial give the same video, whatever the batch around it.
        """
        walk = Walk(seed, serial, steps_per_frame, temperature, solver, bridge)
        return torch.cat(list(self.windows(ticks, walk, context, context_ticks)), dim=1)

    @torch.no_grad()
    def windows(
        self,
        ticks: Ticks,
        walk: Walk,
        context: Frames | None = None,
        context_ticks: Ticks | None = None,
        window: int = WINDOW,
    ) -> Iterator[Frames]:
        """`sample`, `window` frames at a time: the state is carried on, so there is no seam."""
        history, reference = self._history(ticks, context, context_ticks)
        content, state = self.start_prior(history.summary)
        seed, serial = walk.seed, walk.serial
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        choice = uniform(seed, serial, Stream.COMPONENT, (1,))
        z = state.at(choice, normal(seed, serial, Stream.INITIAL, self.latent_shape))
        move, carried = self.mover(w, history, walk), None
        for first in range(0, ticks.shape[1], window):
            part = ticks[:, first : first + window]
            states = move(z, torch.cat([reference, part], dim=1))
            frames, carried = self.decoder.carry_on(states, w, carried)
            z, reference = states[:, -1], part[:, -1:]
            yield frames

    def _history(
        self, ticks: Ticks, context: Frames | None, context_ticks: Ticks | None
    ) -> tuple[History, Int64[Tensor, "batch 1"]]:
        """What the prior may see, and the tick at which the state starts."""
        if context is None or context_ticks is None:
            tokens, times = self._no_tokens(ticks), ticks[:, :0]
            reference = ticks[:, :1]
        else:
            tokens, times = self.encoder(context), context_ticks
            reference = context_ticks[:, -1:]
        seen = torch.ones_like(times, dtype=torch.bool)
        return self.temporal(tokens, seconds(times - reference), seen), reference

    def _no_tokens(self, ticks: Ticks) -> Tokens:
        cells = 1 if self.side is None else self.side**2
        shape = (len(ticks), 0, cells, self.config.encoder.features)
        return torch.zeros(shape, device=ticks.device)


def solver_grid(
    ticks: Ticks, cell: int, steps_per_frame: int | None
) -> tuple[Int64[Tensor, "batch points"], list[int]]:
    """Solver times through all of `ticks`, and the places of `ticks` among them.

    Between two of `ticks` lie `steps_per_frame` steps, also where they are equal, so that all ranks
    take as many; or, without it, as many as keep each within `cell`.
    """
    points, saved = [ticks[:, :1]], [0]
    for before, after in pairwise(ticks.T):
        count = steps_per_frame or -(-int((after - before).max()) // cell)
        part = torch.arange(1, count + 1, device=ticks.device)
        points.append(before[:, None] + (after - before)[:, None] * part // max(1, count))
        saved.append(saved[-1] + count)
    return torch.cat(points, dim=1), saved
