"""What a film of particles is made of: static content, and a state that moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config

Positions = Float[Tensor, "batch particles 2"]  # (x, y), pixels; x to the right, y down
ParticleState = Float[Tensor, "batch particles components"]  # as `Layout` says


class Content(NamedTuple):
    """w, the static part of a film: each particle's presence, look and birthplace; the ground."""

    logit: Float[Tensor, "batch particles 1"]  # of its presence
    look: Float[Tensor, "batch particles appearance"]
    born: Positions
    ground: Float[Tensor, "batch channels height width"]
    views: Float[Tensor, "batch particles views shades patch patch"] | None = None  # of patches

    @property
    def condition(self) -> Float[Tensor, "batch particles condition"]:
        """Presence and appearance, which the law and the posterior read."""
        return torch.cat([self.logit.sigmoid(), self.look], dim=-1)

    def rows(self, chosen: Tensor) -> Content:
        """Select clips."""
        logit, look, born, ground = (part[chosen] for part in self[:4])
        return Content(
            logit, look, born, ground, None if self.views is None else self.views[chosen]
        )

    def repeated(self, times: int) -> Content:
        """Repeat each clip's content `times` times, for as many frames."""
        logit, look, born, ground = (part.repeat_interleave(times, 0) for part in self[:4])
        views = None if self.views is None else self.views.repeat_interleave(times, 0)
        return Content(logit, look, born, ground, views)


@dataclass(frozen=True)
class Layout:
    """Where places, velocities (order 2), and depth or a pose lie in a state."""

    order: int
    has_depth: bool
    has_pose: bool = False
    has_jitter: bool = False

    @property
    def size(self) -> int:
        """Components of a particle's state."""
        return 2 * self.order + self.has_depth + self.has_pose

    @property
    def noises(self) -> int:
        """Components of the noise: two axes, twice with a jitter, and depth."""
        return 2 + 2 * self.has_jitter + self.has_depth

    def split(self, z: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Split (..., components) into places, velocities and depth; None for an absent part."""
        velocity = z[..., 2:4] if self.order == 2 else None
        return z[..., :2], velocity, z[..., -1:] if self.has_depth else None

    def turn(self, z: Tensor) -> Tensor:
        """Return what chooses a thing's view: its velocity, in 4 pixels a frame."""
        return z[..., 2:4] / 4

    def pose(self, z: Tensor) -> Tensor | None:
        """Return the poses, in rounds; None where things have none."""
        return z[..., -1:] if self.has_pose else None

    def join(
        self,
        place: Tensor,
        velocity: Tensor | None,
        depth: Tensor | None,
        pose: Tensor | None = None,
    ) -> Tensor:
        """Join places, velocities, depth and pose: the inverse of `split` and `pose`."""
        return torch.cat([x for x in (place, velocity, depth, pose) if x is not None], dim=-1)


def layout_of(config: Config) -> Layout:
    """Choose the layout that `sde.order` and `particles` ask for."""
    settings = config.particles
    has_depth, has_pose = settings.presence == "depth", settings.poses > 1
    return Layout(config.sde.order, has_depth, has_pose, settings.jitter_start > 0)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, gap: int = 1) -> nn.Conv2d:
    """Build a convolution that keeps the side, or divides it by `stride`."""
    return nn.Conv2d(inputs, outputs, kernel, stride, gap * (kernel // 2), dilation=gap)


def scaled(layer: nn.Module, factor: float) -> nn.Module:
    """Scale the weights of `layer` in place, and set its biases to 0."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.zero_()
    return layer


def mlp(inputs: int, hidden: int, outputs: int, factor: float) -> nn.Sequential:
    """Build an MLP of two hidden layers; the last layer's weights are scaled by `factor`."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        scaled(nn.Linear(hidden, outputs), factor),
    )


def median(frame: Float[Tensor, "batch channels height width"]) -> Tensor:
    """Compute each channel's median over the observed pixels, (batch, channels, 1, 1).

    NaN is unobserved; the median is 0.5 where no pixel is observed.
    """
    return frame.flatten(2).nanmedian(-1).values.nan_to_num(0.5)[..., None, None]


def centred(frames: Tensor, level: Tensor) -> Tensor:
    """Subtract `level` from `frames`; unobserved pixels (NaN) become 0."""
    return (frames - level).nan_to_num(0.0)
