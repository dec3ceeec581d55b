"""Things larger than a blob: each paints a patch, which is laid over the ground at its place."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles import poses
from sdevid.models.particles.placing import composed
from sdevid.models.particles.state import Content, conv, layout_of, scaled
from sdevid.types import Frames

SHARE = 16.0  # how steeply a view's share rises with the velocity in its direction, before training

Views = Float[Tensor, "batch particles views shades patch patch"]


class PatchPainter(nn.Module):
    """Network from a thing's appearance to its views: patches of colour and opacity.

    Where things are sought by their middle, so that patches lie upon each other from the start, a
    linear map at full resolution is added, which learns them fastest.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings = config.particles
        self.views, self.start = settings.views * settings.poses, settings.patch // 4
        self.channels = config.channels
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
        self.direct = None
        if settings.sought == "middle":
            shared = settings.views if settings.poses > 1 else 0  # of what all poses of a view have
            pixels = (self.views + shared) * (self.channels + 1) * settings.patch**2
            self.direct = scaled(nn.Linear(settings.appearance, pixels), 0.3)
            self.poses = settings.poses
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias.view(self.views, -1)[:, -1], -2.0)  # nearly transparent at first

    def forward(self, look: Float[Tensor, "batch particles appearance"]) -> Views:
        """Paint each thing's views: colours times opacity, and last the opacity."""
        seed = torch.unflatten(self.seed(look.flatten(0, 1)), -1, (-1, self.start, self.start))
        painted = self.layers(seed).float()
        if self.direct is not None:
            painted = painted + self._direct(look.flatten(0, 1)).view_as(painted)
        raw = torch.unflatten(painted, 1, (self.views, self.channels + 1))
        shades = raw.sigmoid()
        opacity = shades[:, :, -1:]
        views = torch.cat([shades[:, :, :-1] * opacity, opacity], dim=2)
        return torch.unflatten(views, 0, look.shape[:2])

    def _direct(self, look: Float[Tensor, "things appearance"]) -> Float[Tensor, "things pixels"]:
        """Paint by the linear map: each pose, plus what all poses of its view have in common."""
        assert self.direct is not None
        flat: Tensor = self.direct(look).float()
        if self.poses == 1:
            return flat
        both = torch.unflatten(flat, 1, (self.views // self.poses, self.poses + 1, -1))
        return (both[:, :, 1:] + both[:, :, :1]).flatten(1)


class PatchDecoder(nn.Module):
    """D(w, z): each thing's patch at its place, over the static ground.

    A thing of several views shows a mixture of them: each has a direction, and the one that its
    velocity is nearest to has the largest share. No gradient passes from that choice to the
    velocity, which would become a code of what is shown. With poses, each view is painted in each
    of them, and those next to the thing's own are mixed.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layout, self.views = layout_of(config), config.particles.views
        self.poses = config.particles.poses
        if self.views > 1:
            self.choice = nn.Linear(2, self.views)
            ways = [2 * math.pi * view / self.views for view in range(self.views)]
            nn.init.zeros_(self.choice.bias)
            with torch.no_grad():
                self.choice.weight.copy_(
                    torch.tensor([(SHARE * math.cos(way), SHARE * math.sin(way)) for way in ways])
                )

    def forward(self, z: Float[Tensor, "batch time particles components"], w: Content) -> Frames:
        """Draw the frames of `z` over the static ground."""
        batch, time = z.shape[:2]
        ground = w.ground.repeat_interleave(time, 0)
        shown, place = self.shown(z, w), self.layout.split(z)[0]
        frames = composed(ground, shown.flatten(0, 1), place.flatten(0, 1))
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

    def shown(
        self, z: Float[Tensor, "batch time particles components"], w: Content
    ) -> Float[Tensor, "batch time particles shades patch patch"]:
        """Mix each thing's views by its velocity and pose; presence scales colour and opacity."""
        assert w.views is not None
        views = w.logit.sigmoid()[..., None, None, None] * w.views
        pose = self.layout.pose(z)
        if self.views == 1 and pose is None:
            return views[:, None, :, 0].expand(-1, z.shape[1], -1, -1, -1, -1)
        share = torch.ones_like(z[..., :1])
        if self.views > 1:
            share = self.choice(self.layout.turn(z).detach()).float().softmax(-1)
        if pose is not None:
            share = (share[..., None] * poses.shares(pose, self.poses)[..., None, :]).flatten(-2)
        return torch.einsum("btkv,bkvcij->btkcij", share, views)
