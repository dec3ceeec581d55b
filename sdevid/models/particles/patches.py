"""Things larger than a blob: each paints a patch, which is laid over the ground at its place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles.placing import Patches, composed
from sdevid.models.particles.state import Content, conv, layout_of
from sdevid.types import Frames

Views = Float[Tensor, "batch particles views shades patch patch"]


class PatchPainter(nn.Module):
    """Network from a thing's appearance to its views: patches of colour and opacity."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings = config.particles
        self.views, self.channels, self.start = settings.views, config.channels, settings.patch // 4
        width = settings.painter
        self.seed = nn.Linear(settings.appearance, 2 * width * self.start**2)
        self.layers = nn.Sequential(
            nn.SiLU(),
            conv(2 * width, 4 * width),
            nn.PixelShuffle(2),
            nn.SiLU(),
            conv(width, 4 * width),
            nn.PixelShuffle(2),
            nn.SiLU(),
            conv(width, self.views * (self.channels + 1)),
        )
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias.view(self.views, -1)[:, -1], -2.0)  # nearly transparent at first

    def forward(self, look: Float[Tensor, "batch particles appearance"]) -> Views:
        """Paint each thing's views: colours times opacity, and last the opacity."""
        seed = torch.unflatten(self.seed(look.flatten(0, 1)), -1, (-1, self.start, self.start))
        raw = torch.unflatten(self.layers(seed).float(), 1, (self.views, self.channels + 1))
        shades = raw.sigmoid()
        opacity = shades[:, :, -1:]
        views = torch.cat([shades[:, :, :-1] * opacity, opacity], dim=2)
        return torch.unflatten(views, 0, look.shape[:2])


class PatchDecoder(nn.Module):
    """D(w, z): each thing's patch at its place, over the static ground.

    A thing of several views shows a mixture of them, chosen by its velocity.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layout, self.views = layout_of(config), config.particles.views
        if self.views > 1:
            self.choice = nn.Sequential(
                nn.Linear(2, 32),
                nn.SiLU(),
                nn.Linear(32, 32),
                nn.SiLU(),
                nn.Linear(32, self.views),
            )

    def forward(self, z: Float[Tensor, "batch time particles components"], w: Content) -> Frames:
        """Draw the frames of `z` over the static ground."""
        batch, time = z.shape[:2]
        flat = z.flatten(0, 1)
        w = w.repeated(time)
        frames = composed(w.ground, self.shown(flat, w), self.layout.split(flat)[0])
        return torch.unflatten(frames, 0, (batch, time))

    def carry_on(
        self, z: Float[Tensor, "batch time particles components"], w: Content, before: None
    ) -> tuple[Frames, None]:
        """Draw the frames of `z`; nothing is carried from one to the next."""
        return self(z, w), before

    def presence(
        self, z: Float[Tensor, "batch time particles components"], w: Content
    ) -> Float[Tensor, "batch time particles 1"]:
        """Compute how visible each thing is, in [0, 1]."""
        return w.logit[:, None].expand(-1, z.shape[1], -1, -1).sigmoid()

    def shown(self, z: Float[Tensor, "batch particles components"], w: Content) -> Patches:
        """Mix each thing's views by its velocity; presence scales colour and opacity."""
        assert w.views is not None
        present = w.logit.sigmoid()[..., None, None]
        if self.views == 1:
            return present * w.views[:, :, 0]
        share = self.choice(self.layout.turn(z)).float().softmax(-1)
        return present * torch.einsum("bkv,bkvcij->bkcij", share, w.views)
