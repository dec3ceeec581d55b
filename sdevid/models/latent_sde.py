"""The model: frames to a latent SDE and back (Li et al. 2020)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Control, Prior
from sdevid.models.decoder import FrameDecoder
from sdevid.models.encoder import FrameEncoder, Tokens
from sdevid.models.start import PosteriorStart, PriorStart
from sdevid.models.temporal import History, TemporalEncoder
from sdevid.sde.noise import Brownian, Stream, normal, uniform
from sdevid.types import TICKS_PER_SECOND, Frames, Serial, Ticks, seconds


class LatentSDE(nn.Module):
    """A latent SDE on video with a prior that history conditions and a controlled posterior."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        sde, features = config.sde, config.encoder.features
        self.config = config
        self.side = config.encoder.map_size if sde.latent == "map" else None
        self.encoder = FrameEncoder(config)
        self.temporal = TemporalEncoder(config.encoder)
        self.start_prior = PriorStart(config, self.side)
        self.start_posterior = PosteriorStart(config, self.side)
        self.prior = Prior(sde, features, stratonovich=config.sde_type == "stratonovich")
        self.control = Control(sde, features)
        self.decoder = FrameDecoder(config)

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
        """Parameters that learn through the KL alone."""
        chosen = ("prior.", "start_prior.")
        return {name for name, _ in self.named_parameters() if name.startswith(chosen)}

    def brownian(self, seed: int, serial: Serial) -> Brownian:
        """The Brownian path that drives the clip of each serial."""
        return Brownian(seed, serial, self.latent_shape, self.cell)

    @torch.no_grad()
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

        The state starts at the last context frame, or at the first of `ticks`; none of `ticks`
        lies before it. `steps_per_frame` solver steps lie between two frames; without it, steps
        are as long as in training, at most. `temperature` scales the noise along the path. The
        same seed and serial give the same video, whatever the batch around it.
        """
        if context is None or context_ticks is None:
            tokens, times = self._no_tokens(ticks), ticks[:, :0]
            reference = ticks[:, :1]
        else:
            tokens, times = self.encoder(context), context_ticks
            reference = context_ticks[:, -1:]
        seen = torch.ones_like(times, dtype=torch.bool)
        history: History = self.temporal(tokens, seconds(times - reference), seen)
        return self._roll(history, reference, ticks, seed, serial, steps_per_frame, temperature)

    def _roll(
        self,
        history: History,
        reference: Int64[Tensor, "batch 1"],
        ticks: Ticks,
        seed: int,
        serial: Serial,
        steps_per_frame: int | None,
        temperature: float,
    ) -> Frames:
        content, state = self.start_prior(history.summary)
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        choice = uniform(seed, serial, Stream.COMPONENT, (1,))
        z0 = state.at(choice, normal(seed, serial, Stream.INITIAL, self.latent_shape))
        grid, saved = solver_grid(torch.cat([reference, ticks], 1), self.cell, steps_per_frame)
        dw = temperature * self.brownian(seed, serial).increments(grid)
        conditions = self.prior.conditions(w, history.summary.mean(1))
        path = trajectory.solve(self.config, z0, grid, dw, saved[1:], (self.prior, conditions))
        frames: Frames = self.decoder(path.states, w)
        return frames

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
