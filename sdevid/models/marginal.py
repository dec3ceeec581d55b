"""The posterior as marginals: q(w | x) and q(z_t | x) at every time, without a solver."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.encoder import Tokens, lay_out
from sdevid.models.gaussian import Gaussian, GaussianHead
from sdevid.sde.matching import Curve, Moments, Moving, Spread, tangents

OPEN = math.log(math.e - 1)  # softplus of it is 1


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
    """q(z_t | x) = N(m(t), s(t)^2) along each clip."""

    mean: Curve
    scale: Spread

    def at(self, moments: Moments) -> tuple[Moving, Moving]:
        """m and s with their rates."""
        return self.mean.at(moments.spots), self.scale.at(moments.spots)


class Marginal(nn.Module):
    """Curves through the posteriors of the frames, bent between two by both their tokens.

    Before training the mean is not bent, and the spread between frames is that of a Brownian bridge
    of the prior's diffusion: as that is learnt, the spread goes with it. The mean's bends speak in
    units of the diffusion before training.
    """

    def __init__(self, config: Config, side: int | None) -> None:
        super().__init__()
        self.side, self.unit = side, config.sde.diffusion_start
        self.floor = config.matching.scale_floor
        self.frames = FramePosterior(config, side)
        self.bend = nn.Linear(2 * config.encoder.features, 6 * config.sde.latent_size)
        nn.init.zeros_(self.bend.weight)
        nn.init.zeros_(self.bend.bias)

    def at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """q(w), and q(z) at the frames."""
        content, state = self.frames(tokens)
        return content, Gaussian(state.mean, state.scale + self.floor)

    def between(
        self,
        state: Gaussian,
        tokens: Tokens,
        times: Float[Tensor, "batch time"],
        diffusion: Float[Tensor, "batch intervals *latent"],
    ) -> Marginals:
        """Through q(z) at the frames at `times`, where the prior's diffusion is g."""
        pairs = torch.cat([tokens[:, :-1], tokens[:, 1:]], dim=-1)
        bent = torch.unflatten(self.bend(pairs).float(), -1, (6, -1)).movedim(-2, 2)
        shift, bridge = lay_out(bent, self.side).chunk(2, dim=2)
        reach = self.unit * times.diff(dim=1).sqrt()
        shift = shift * reach.view(*reach.shape, *[1] * (shift.dim() - 2))
        level = (state.scale - self.floor).log()
        start = torch.tensor([OPEN, 0.0, 0.0], device=bridge.device)
        bridge = bridge + start.view(3, *[1] * (bridge.dim() - 3))
        straight = Curve(level, tangents(level, times))
        return Marginals(
            Curve(state.mean, tangents(state.mean, times), shift),
            Spread(straight, bridge, diffusion, self.floor),
        )
