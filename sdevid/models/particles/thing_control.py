"""The posterior's eye for things that paint patches: each looks for its own patch in the frame."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles.matching import COARSE, FINE, match
from sdevid.models.particles.middles import different, middle
from sdevid.models.particles.placing import Patches, relative
from sdevid.models.particles.posterior import HIGHEST, MIDDLE, Features, Observation
from sdevid.models.particles.state import Content, ParticleState, layout_of, mlp
from sdevid.models.particles.thing_reader import CLEAR
from sdevid.types import Frames

LEAST = -2.0  # log precision of a thing's place, pixel^-2: its own patch is never lost sight of
COMPARED = (COARSE + 1) ** 2 + (2 * FINE + 1) ** 2  # shifts


class NextFrames(nn.Module):
    """What the posterior reads of each interval: the frame at its end."""

    def forward(self, frames: Frames) -> Features:
        """Return the second frame of each interval."""
        return frames[:, 1:]


class ThingControl(nn.Module):
    """Reads each thing's motion off the next frame near its own place.

    It compares the thing's patch there or, with `sought: middle`, takes the middle of what differs
    from the ground; a network corrects the place and says how sure it is.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.side = config.frame_size
        self.patch, self.clear = settings.patch, CLEAR * config.observation.scale
        signs = 1 if settings.sought == "middle" else COMPARED
        inputs = signs + 1 + settings.appearance + 6
        self.correct = mlp(inputs, settings.hidden, 3, 0.1)
        start = 0.5 * (math.log(settings.precision_start) - MIDDLE)
        nn.init.constant_(self.correct.get_parameter("4.bias")[2:], start)

    def forward(
        self,
        frame: Float[Tensor, "batch channels rows columns"],
        z: ParticleState,
        content: Content,
        left: Float[Tensor, "batch 2"],
        patches: Patches | None,
    ) -> Observation:
        """Read the pseudo-observations of each thing before a step, from the interval's last frame.

        `left` is the step's share of what is left of its interval, and its length in frames. Things
        that are sought by their middle need no `patches`.
        """
        place, velocity, _ = self.layout.split(z)
        share, length = left[:, :1, None], left[:, 1:, None]
        ahead = torch.zeros_like(place) if velocity is None else velocity * length / share
        shown = (frame - content.ground).nan_to_num(0.0)
        within = (place + ahead).clamp(0, self.side - 1)  # what left the frame is looked for in it
        ahead = within - place
        if patches is None:
            found = middle(different(shown, self.clear), within, self.patch)
            shift, signs = found.place - within, found.area / self.patch**2
        else:
            shift, signs = match(shown, relative(patches, content.ground.mean((2, 3))), within)
        moving = torch.cat([ahead / 4, shift / 4, left[:, None].expand(-1, place.shape[1], -1)], -1)
        raw = self.correct(torch.cat([signs, content.condition, moving], dim=-1)).float()
        precision = (MIDDLE + 2 * raw[..., 2:]).clamp(LEAST, HIGHEST).exp()
        return Observation(share * (ahead + shift + raw[..., :2]), precision, None, None)
