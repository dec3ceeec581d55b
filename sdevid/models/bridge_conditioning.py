"""What draws a path towards observed frames that still lie ahead."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.encoder import Sides, Tokens, lay_out
from sdevid.models.temporal import TimeFeatures
from sdevid.transfer import to_device
from sdevid.types import TICKS_PER_UNIT, Ticks, units


class FutureFrames(NamedTuple):
    """Observed frames anywhere in time; those after a tick condition the drift there."""

    tokens: Tokens
    ticks: Ticks  # rising
    seen: Bool[Tensor, "batch time"]

    def repeated(self, count: int) -> FutureFrames:
        """Repeat each clip's `count` times in a row."""
        return FutureFrames(*(part.repeat_interleave(count, 0) for part in self))


class BridgeTerm(NamedTuple):
    """What the next observed frame adds to the drift; with a time axis, or at one time.

    h gains pull (target - z), and its network a shift; all are 0 where no frame lies ahead.
    """

    shift: Float[Tensor, "batch *any"]  # of the drift network's first layer
    target: Float[Tensor, "batch *any"]  # latent that the frame stands for
    pull: Float[Tensor, "batch *any"]  # per unit of time

    def unbind(self) -> list[BridgeTerm]:
        """Split along time into one term at each time."""
        parts = (part.unbind(1) for part in self)
        return [BridgeTerm(*each) for each in zip(*parts, strict=True)]

    def flatten(self) -> BridgeTerm:
        """Merge the times into the batch: (batch * times, ...)."""
        return BridgeTerm(*(part.flatten(0, 1) for part in self))


class BridgeConditioning(nn.Module):
    """Conditions the prior's drift on the next observed frame and the time left until it.

    The pull is that of a Brownian bridge, (target - z) / (time left), times a weight for each
    component that starts at zero; no time left counts as less than one solver step. Without `pulls`
    the frame shifts the drift's condition alone.
    """

    def __init__(self, config: Config, sides: Sides, cell: int, *, pulls: bool = True) -> None:
        super().__init__()
        features, size = config.encoder.features, config.sde.latent_size
        self.sides, self.shortest = sides, cell / TICKS_PER_UNIT
        self.time = TimeFeatures(features, config.encoder.time_period)
        self.shift = nn.Sequential(nn.SiLU(), nn.Linear(features, config.sde.hidden))
        self.frame = nn.Linear(features, features)
        self.pulls = pulls
        if self.pulls:
            self.target = nn.Linear(features, size)
            self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, future: FutureFrames, at: Int64[Tensor, "batch times"]) -> BridgeTerm:
        """Compute the bridge term of the next observed frame after each of the ticks `at`."""
        at = to_device(at, future.ticks.device)
        later = (future.ticks[:, None] > at[..., None]) & future.seen[:, None]
        index = later.int().argmax(2)  # the first of them
        exists = later.any(2)
        rows = torch.arange(len(at), device=at.device)[:, None]
        gap = units(future.ticks[rows, index] - at).where(exists, 1.0)
        frame = future.tokens[rows, index]
        condition = self.frame(frame) + self.time(gap)[:, :, None]
        shift = lay_out(self.shift(condition), self.sides)
        wide = (*exists.shape, *[1] * (shift.dim() - 2))
        there = exists.view(wide)
        if not self.pulls:
            none = shift.new_zeros(wide)
            return BridgeTerm(shift * there, none, none)
        weight = self.weight.view(1, 1, -1, *[1] * (shift.dim() - 3))
        pull = weight / gap.clamp(min=self.shortest).view(wide) * there
        return BridgeTerm(shift * there, lay_out(self.target(frame).float(), self.sides), pull)
