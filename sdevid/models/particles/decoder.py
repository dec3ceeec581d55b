"""Particles drawn by splatting on a canvas of half the side, then painted over the ground."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles.state import Content, conv, layout_of
from sdevid.types import Frames


class ParticleDecoder(nn.Module):
    """D(w, z): presence and appearance of each particle under a Gaussian at its place.

    Particles add up, so their order does not matter. Each frame is drawn from its own state alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        channels, width = settings.appearance + 1, settings.painter
        self.log_radius = nn.Parameter(torch.tensor([math.log(settings.splat_start)]))
        self.paint = nn.Sequential(
            conv(channels, width),
            nn.SiLU(),
            conv(width, width),
            nn.SiLU(),
            conv(width, 4 * config.channels),
            nn.PixelShuffle(2),
        )
        self.cells = config.frame_size // 2

    def forward(self, z: Float[Tensor, "batch time particles components"], w: Content) -> Frames:
        """Draw the frames of `z` over the static ground."""
        batch, time = z.shape[:2]
        painted = self.paint(self.canvas(z, w)).float()
        return torch.unflatten(painted, 0, (batch, time)) + w.ground[:, None]

    def carry_on(
        self, z: Float[Tensor, "batch time particles components"], w: Content, before: None
    ) -> tuple[Frames, None]:
        """Draw the frames of `z`; nothing is carried from one to the next."""
        return self(z, w), before

    @property
    def axis(self) -> Float[Tensor, " cells"]:
        """The middle of each of the canvas's cells along one axis, in pixels."""
        return torch.arange(self.cells, device=self.log_radius.device) * 2 + 0.5

    def presence(
        self, z: Float[Tensor, "batch time particles components"], w: Content
    ) -> Float[Tensor, "batch time particles 1"]:
        """Compute how visible each particle is, in [0, 1]."""
        depth = self.layout.split(z)[2]
        logit = w.logit[:, None].expand(-1, z.shape[1], -1, -1)
        return (logit if depth is None else logit + depth).sigmoid()

    def canvas(
        self, z: Float[Tensor, "batch time particles components"], w: Content
    ) -> Float[Tensor, "frames channels rows columns"]:
        """Sum over particles of presence times (1, appearance), under separable Gaussians."""
        presence = self.presence(z, w)
        look = torch.cat([torch.ones_like(w.logit), w.look], dim=-1)[:, None]
        value = (presence * look).flatten(0, 1)  # (frames, particles, channels)
        place = self.layout.split(z)[0].flatten(0, 1)
        axis = self.axis
        sharp = -0.5 * (-2 * self.log_radius).exp()
        across = (sharp * (axis - place[..., :1]).square()).exp()
        down = (sharp * (axis - place[..., 1:]).square()).exp().transpose(1, 2)
        rows = value.transpose(1, 2)[:, :, None] * down[:, None]  # (frames, channels, rows, K)
        return torch.unflatten(rows.flatten(1, 2) @ across, 1, (value.shape[-1], -1))
