"""The posterior's eye: features of neighbouring frames, read where each particle is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.particles.state import (
    Content,
    ParticleState,
    Positions,
    centred,
    conv,
    layout_of,
    median,
    mlp,
)
from sdevid.types import Frames

LOWEST, HIGHEST = -3.0, 6.0  # log precision of a place, pixel^-2: lower, it is hardly taught
MIDDLE = -2.0  # the same where the network says 0

Features = Float[Tensor, "batch intervals features rows columns"]


class Observation(NamedTuple):
    """Pseudo-observations of one step of each particle, read from the frames."""

    shift: Float[Tensor, "batch particles 2"]  # pixels, from its place before the step
    precision: Float[Tensor, "batch particles 1"]  # of that shift, pixel^-2
    depth: Float[Tensor, "batch particles 1"] | None  # change of its depth, logits
    depth_precision: Float[Tensor, "batch particles 1"] | None


class NeighbourFeatures(nn.Module):
    """Feature map of each interval between frames, from both its frames and one further out."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        features = config.particles.features
        self.lookaround = config.particles.lookaround
        frames = 4 if self.lookaround else 2
        self.layers = nn.Sequential(
            conv(frames * config.channels, 16, 5, 2),
            nn.SiLU(),
            conv(16, 32, 3, 2),
            nn.SiLU(),
            conv(32, 32),
            nn.SiLU(),
            conv(32, 32),
            nn.SiLU(),
            conv(32, features),
        )

    def forward(self, frames: Frames) -> Features:
        """Compute the features of each interval from `frames` less the first one's median."""
        x = centred(frames, median(frames[:, 0])[:, None])
        seen = [x[:, :-1], x[:, 1:]]
        if self.lookaround:
            after = torch.cat([x[:, 2:], x[:, -1:]], dim=1)
            seen += [after, torch.cat([x[:, :1], x[:, :-2]], dim=1)]
        stacked = torch.cat(seen, dim=2)
        features = self.layers(stacked.flatten(0, 1))
        return torch.unflatten(features, 0, stacked.shape[:2])


class ParticleControl(nn.Module):
    """Reads each particle's motion at its own place, so that errors do not accumulate."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.side = config.frame_size
        inputs = settings.features + 1 + settings.appearance + 2
        self.place = mlp(inputs + 2 * (self.layout.order - 1), settings.hidden, 3, 0.1)
        start = 0.5 * (math.log(settings.precision_start) - MIDDLE)
        nn.init.constant_(self.place.get_parameter("4.bias")[2:], start)
        if self.layout.has_depth:
            self.depth = mlp(inputs + 1, settings.hidden // 2, 2, 0.0)

    def forward(
        self,
        features: Float[Tensor, "batch features rows columns"],
        z: ParticleState,
        content: Content,
        left: Float[Tensor, "batch 2"],
        _patches: None = None,
    ) -> Observation:
        """Read the pseudo-observations of each particle before a step; it has no patch.

        `left` is the step's share of what is left of its interval, and its length in frames.
        """
        place, velocity, depth = self.layout.split(z)
        read = [features_at(features, place, self.side), content.condition]
        read.append(left[:, None].expand(-1, place.shape[1], -1))
        inputs = torch.cat(read, dim=-1)
        moving = inputs if velocity is None else torch.cat([inputs, velocity / 4], dim=-1)
        raw = self.place(moving).float()
        precision = (MIDDLE + 2 * raw[..., 2:]).clamp(LOWEST, HIGHEST).exp()
        if depth is None:
            return Observation(raw[..., :2], precision, None, None)
        change, width = self.depth(torch.cat([inputs, depth], dim=-1)).float().chunk(2, dim=-1)
        return Observation(raw[..., :2], precision, change, (2 * width - 1).clamp(-8, 8).exp())


def features_at(
    features: Float[Tensor, "batch features rows columns"], positions: Positions, side: int
) -> Float[Tensor, "batch particles features"]:
    """Read features at `positions` in pixels of a frame of `side`, by bilinear interpolation."""
    grid = ((2 * positions + 1) / side - 1).to(features.dtype)[:, :, None]
    sampled = functional.grid_sample(features, grid, padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2)
