"""The posterior's eye for things that paint patches: each looks for its own patch in the frame."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.particles.matching import COARSE, FINE, match
from sdevid.models.particles.placing import Patches
from sdevid.models.particles.posterior import HIGHEST, MIDDLE, Features, Observation
from sdevid.models.particles.state import Content, ParticleState, layout_of, mlp
from sdevid.types import Frames

LEAST = -2.0  # log precision of a thing's place, pixel^-2: its own patch is never lost sight of
COMPARED = (COARSE + 1) ** 2 + (2 * FINE + 1) ** 2  # shifts


class NextFrames(nn.Module):
    """What the posterior reads of each interval: the frame at its end."""

    def forward(self, frames: Frames) -> Features:
        """Return the second frame of each interval."""
        return frames[:, 1:]


class ThingControl(nn.Module):
    """Reads each thing's motion by comparing its patch with the next frame near its own place."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.side = config.frame_size
        inputs = COMPARED + 1 + settings.appearance + 6
        self.correct = mlp(inputs, settings.hidden, 3, 0.1)
        start = 0.5 * (math.log(settings.precision_start) - MIDDLE)
        nn.init.constant_(self.correct.get_parameter("4.bias")[2:], start)

    def forward(
        self,
        frame: Float[Tensor, "batch channels rows columns"],
        z: ParticleState,
        content: Content,
        left: Float[Tensor, "batch 2"],
        patches: Patches,
    ) -> Observation:
        """Read the pseudo-observations of each thing before a step, from the interval's last frame.

        `left` is the step's share of what is left of its interval, and its length in frames.
        """
        place, velocity, _ = self.layout.split(z)
        share, length = left[:, :1, None], left[:, 1:, None]
        ahead = torch.zeros_like(place) if velocity is None else velocity * length / share
        shown = (frame - content.ground).nan_to_num(0.0)
        bare = content.ground.mean((2, 3))[:, None, :, None, None]
        relative = torch.cat(
            [patches[:, :, :-1] - patches[:, :, -1:] * bare, patches[:, :, -1:]], dim=2
        )
        within = (place + ahead).clamp(0, self.side - 1)  # what left the frame is looked for in it
        ahead = within - place
        shift, chances = match(shown, relative, within)
        moving = torch.cat([ahead / 4, shift / 4, left[:, None].expand(-1, place.shape[1], -1)], -1)
        raw = self.correct(torch.cat([chances, content.condition, moving], dim=-1)).float()
        precision = (MIDDLE + 2 * raw[..., 2:]).clamp(LEAST, HIGHEST).exp()
        return Observation(share * (ahead + shift + raw[..., :2]), precision, None, None)
