"""Particles born outside the picture, so that what comes in can be drawn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles.posterior import Features, features_at
from sdevid.models.particles.state import Positions, mlp

ABSENT, SPREAD = -2.0, 2.0  # presence's logit before training, and how far one draw moves it
INSIDE = 2.0  # pixels from the frame's edge at which features stand for what lies outside


class Outside(NamedTuple):
    """The ring's particles, and what their presence costs."""

    positions: Positions
    logit: Float[Tensor, "batch ring 1"]
    look: Float[Tensor, "batch ring appearance"]
    kl: Float[Tensor, " batch"]  # nats


class Ring(nn.Module):
    """One more row of cells around the picture, with one particle anywhere in each of them.

    In what is generated, a particle that leaves the ring comes in again on the other side, unseen:
    the plane is a torus, on which particles that move alike anywhere stay as dense as they began.

    Presence is drawn from N(0, 1) a particle, scaled and shifted, since no frame shows it. The
    posterior reads the whole clip at the nearest place inside. All particles share one appearance.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings = config.particles
        self.side, self.frame = settings.side, config.frame_size
        self.pixels = config.frame_size / settings.side
        self.look = nn.Parameter(torch.zeros(settings.appearance))
        self.log_odds = nn.Parameter(torch.tensor([ABSENT]))
        self.read = mlp(settings.features, settings.hidden // 2, 2, 0.0)

    @property
    def size(self) -> int:
        """Particles of the ring."""
        return 4 * self.side + 4

    @property
    def home(self) -> Float[Tensor, "ring 2"]:
        """The middle of each cell around the picture, in pixels, row by row."""
        first, last, device = -1, self.side, self.look.device
        row = torch.arange(first, last + 1, device=device)
        edges = torch.arange(first, last + 1, last - first, device=device)
        cells = [
            torch.cartesian_prod(edges[:1], row),
            torch.cartesian_prod(row[1:-1], edges),
            torch.cartesian_prod(edges[1:], row),
        ]
        return (torch.cat(cells).flip(-1) + 0.5) * self.pixels - 0.5

    def returned(self, place: Positions) -> Positions:
        """Take places beyond the ring's outer edge to the same distance within the opposite one."""
        low = -self.pixels - 0.5
        return low + (place - low) % (self.frame + 2 * self.pixels)

    def forward(self, eps: Float[Tensor, "batch ring 3"], features: Features | None) -> Outside:
        """Draw particles by `eps` from the prior or, with `features`, from the posterior."""
        home = self.home
        share = 0.5 * torch.erf(eps[..., :2] * 0.5**0.5)  # uniform in (-1/2, 1/2)
        positions = home + share * self.pixels
        drawn, spent = eps[..., 2:], eps.new_zeros(len(eps))
        if features is not None:
            batch, intervals = features.shape[:2]
            near = home.clamp(INSIDE, self.frame - 1 - INSIDE).expand(batch * intervals, -1, -1)
            seen = features_at(features.flatten(0, 1), near, self.frame)
            read = torch.unflatten(self.read(seen), 0, (batch, intervals)).float().mean(1)
            mean, log_scale = SPREAD * read[..., :1], read[..., 1:].clamp(-3, 1)
            drawn = mean + log_scale.exp() * drawn
            spent = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum((1, 2))
        logit = self.log_odds + SPREAD * drawn
        return Outside(positions, logit, self.look.expand(*positions.shape[:2], -1), spent)
