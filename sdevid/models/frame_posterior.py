"""The posterior at the frames: q(w | x) and q(z_i | x), without a solver."""

from __future__ import annotations

from torch import nn

from sdevid.config import Config
from sdevid.models.encoder import Sides, Tokens, lay_out
from sdevid.models.gaussian import Gaussian, GaussianHead
from sdevid.models.start import ContentHead


class FramePosterior(nn.Module):
    """q(w | x) from the token of the first frame, and q(z_{t_i} | x) from that of each."""

    def __init__(self, config: Config, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        self.content = ContentHead(config)
        self.state = GaussianHead(config.encoder.features, config.sde.latent_size)

    def forward(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x), and q(z | x) at every frame, (batch, frames, *latent)."""
        state = self.state(tokens)
        laid = Gaussian(lay_out(state.mean, self.sides), lay_out(state.scale, self.sides))
        return self.content(tokens[:, 0]), laid
