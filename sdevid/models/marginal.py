"""The posterior as marginals: q(w | x) and q(z_t | x) at every time, without a solver."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.encoder import Tokens, lay_out
from sdevid.models.gaussian import Gaussian, GaussianHead
from sdevid.sde.matching import Curve, Moments, Moving, tangents


class FramePosterior(nn.Module):
    """q(w | x) from the token of the first frame, and q(z_{t_i} | x) from that of each."""

    def __init__(self, config: Config, side: int | None) -> None:
        super().__init__()
        self.side = side
        self.content = GaussianHead(config.encoder.features, config.sde.content_size)
        self.state = GaussianHead(config.encoder.features, config.sde.latent_size)

    def forward(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        state = self.state(tokens)
        laid = Gaussian(lay_out(state.mean, self.side), lay_out(state.scale, self.side))
        return self.content(tokens[:, 0].mean(1)), laid


class Marginals(NamedTuple):
    """q(z_t | x) = N(m(t), s(t)^2) along each clip: curves of m and of log(s - floor)."""

    mean: Curve
    level: Curve
    floor: float  # of s

    def at(self, moments: Moments) -> tuple[Moving, Moving]:
        """m and s with their rates."""
        where = moments.place, moments.share, moments.span
        level = self.level.at(*where)
        above = level.value.exp()
        return self.mean.at(*where), Moving(self.floor + above, above * level.rate)


class Marginal(nn.Module):
    """Curves through the posteriors of the frames, bent between two by both their tokens.

    What bends them starts at zero, and speaks in units of the diffusion before training: a bridge
    of h seconds is as wide as that times sqrt(h).
    """

    def __init__(self, config: Config, side: int | None) -> None:
        super().__init__()
        self.side, self.unit = side, config.sde.diffusion_start
        self.floor = config.matching.scale_floor
        self.frames = FramePosterior(config, side)
        self.bend = nn.Linear(2 * config.encoder.features, 6 * config.sde.latent_size)
        nn.init.zeros_(self.bend.weight)
        nn.init.zeros_(self.bend.bias)

    def forward(
        self, tokens: Tokens, times: Float[Tensor, "batch time"]
    ) -> tuple[Gaussian, Gaussian, Marginals]:
        """q(w), q(z) at the frames, and between them, from tokens at `times` in seconds."""
        content, state = self.frames(tokens)
        state = Gaussian(state.mean, state.scale + self.floor)
        pairs = torch.cat([tokens[:, :-1], tokens[:, 1:]], dim=-1)
        bent = torch.unflatten(self.bend(pairs).float(), -1, (6, -1)).movedim(-2, 2)
        shift, widen = lay_out(bent, self.side).chunk(2, dim=2)
        reach = self.unit * times.diff(dim=1).sqrt()
        shift = shift * reach.view(*reach.shape, *[1] * (shift.dim() - 2))
        level = (state.scale - self.floor).log()
        curves = Marginals(
            Curve(state.mean, tangents(state.mean, times), shift),
            Curve(level, tangents(level, times), widen),
            self.floor,
        )
        return content, state, curves
