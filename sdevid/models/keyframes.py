"""The frames observed on both sides of a time, each carried to it and mixed.

A frame between two observed ones is what was seen before, carried on, or what was seen after,
carried back, or some of each: by place, as the state decides. So what was seen keeps its shape
wherever it lies in time, and at an observed frame nothing is left to draw.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.models.transport import MIDDLE, Motion, Transport, odds
from sdevid.types import Frames, Ticks, units

_GAIN = 0.5  # of the motion found between two frames, at first
_EDGE = 1e-3  # share of a gap from which log odds are taken

Maps = tuple[Float[Tensor, "frames _ _ _"], ...]  # the frame less the middle, then its features


class Gap(NamedTuple):
    """What was observed around each of some times, clip by clip as many; 0 where nothing was."""

    before: Maps
    after: Maps
    motion: Float[Tensor, "frames 2 rows columns"]  # x and y, pixels from one frame to the other
    share: Float[Tensor, "frames 1 1 1"]  # of the time between them that has gone by
    is_closed: Bool[Tensor, "frames 1 1 1"]  # whether a frame was observed on either side

    def freedom(self) -> Float[Tensor, "frames 1 1 1"]:
        """Compute how far the state may move the picture: 0 where it was observed, at most 1.

        In a gap it is the standard deviation of a Brownian bridge, in units of its largest.
        """
        bridge = 2 * (self.share * (1 - self.share)).sqrt()
        return torch.where(self.is_closed, bridge, 1.0)


class Keyframes(NamedTuple):
    """Frames of clips, of which some were observed."""

    maps: tuple[Float[Tensor, "batch time _ _ _"], ...]
    is_observed: Bool[Tensor, "batch time"]
    ticks: Ticks
    motion: Float[Tensor, "batch time 2 rows columns"]  # pixels since the observed frame before

    def rows(self, index: Tensor | slice) -> Keyframes:
        """Select clips."""
        maps = tuple(each[index] for each in self.maps)
        return Keyframes(maps, self.is_observed[index], self.ticks[index], self.motion[index])

    def velocity(self, index: Int64[Tensor, " batch"]) -> Float[Tensor, "batch 2 rows columns"]:
        """Compute the motion of frame `index` in pixels a unit of time, 0 with a frame ahead.

        In a gap the state is what moves beside the motion between both frames.
        """
        rows = torch.arange(len(index), device=index.device)
        at = self.ticks[rows, index]
        earlier = self.is_observed & (self.ticks < at[:, None])
        before = torch.where(earlier, self.ticks, -1).max(1).values
        interval = units((at - before).clamp(min=1))
        is_open = ~(self.is_observed & (self.ticks > at[:, None])).any(1) & earlier.any(1)
        velocity = self.motion[rows, index] / interval.view(-1, 1, 1, 1)
        return velocity * is_open.view(-1, 1, 1, 1)

    def around(self, ticks: Int64[Tensor, "batch times"]) -> Gap:
        """Select the observed frames before and after each of `ticks`; one at it is both."""
        rows = torch.arange(len(ticks), device=ticks.device)[:, None]
        earlier = (self.ticks[:, None] <= ticks[..., None]) & self.is_observed[:, None]
        later = (self.ticks[:, None] >= ticks[..., None]) & self.is_observed[:, None]
        before = self.ticks.shape[1] - 1 - earlier.int().flip(2).argmax(2)
        after = later.int().argmax(2)
        has_before, has_after = earlier.any(2), later.any(2)
        start, end = self.ticks[rows, before], self.ticks[rows, after]
        is_closed = has_before & has_after
        share = (ticks - start) / (end - start).clamp(min=1)

        def chosen(index: Tensor, exists: Tensor) -> Maps:
            there = exists.flatten().view(-1, 1, 1, 1)
            return tuple(each[rows, index].flatten(0, 1) * there for each in self.maps)

        return Gap(
            chosen(before, has_before),
            chosen(after, is_closed),
            self.motion[rows, after].flatten(0, 1) * is_closed.view(-1, 1, 1, 1),
            torch.where(is_closed, share, 0.0).float().view(-1, 1, 1, 1),
            is_closed.view(-1, 1, 1, 1),
        )


def motion_between(
    estimate: Motion, frames: Frames, is_observed: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time 2 rows columns"]:
    """Estimate how far each observed frame has moved since the one before it, 0 without one.

    Nothing else is read: in training the frames between are not to be known.
    """
    batch, time = is_observed.shape
    index = torch.arange(time, device=frames.device)
    latest = torch.where(is_observed, index, -1).cummax(1).values
    before = torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], dim=1)
    rows = torch.arange(batch, device=frames.device)[:, None]
    pairs = torch.stack([frames[rows, before.clamp(min=0)], frames], dim=2).flatten(0, 1)
    apart = torch.arange(2.0, device=frames.device).expand(len(pairs), -1)
    motion = torch.unflatten(estimate(pairs, apart)[:, 1], 0, (batch, time))
    return motion * (is_observed & (before >= 0)).view(batch, time, 1, 1, 1)


class CarriedPair(NamedTuple):
    """Both frames at a time, and how the decoder mixes and changes them."""

    before: Maps
    after: Maps
    gap: Gap
    steepness: Tensor

    def features(self) -> Maps:
        """Mix their features by the time gone by alone."""
        pairs = zip(self.before[1:], self.after[1:], strict=True)
        weight = self._weight(torch.zeros_like(self.gap.share))
        return tuple(torch.lerp(*pair, weight) for pair in pairs)

    def changed(self, drawn: Float[Tensor, "frames outputs _ _"]) -> Tensor:
        """Compute log odds of the frame; the last channel drawn says which of both it is."""
        shift, choice = drawn[:, :-1], drawn[:, -1:]
        frame = torch.lerp(self.before[0], self.after[0], self._weight(choice))
        return odds(frame, MIDDLE) + self.gap.freedom() * shift

    def _weight(self, choice: Float[Tensor, "frames 1 _ _"]) -> Float[Tensor, "frames 1 _ _"]:
        share = self.gap.share.clamp(_EDGE, 1 - _EDGE).logit()
        weight = (self.steepness * share + choice).sigmoid()
        inside = self.gap.freedom() > 0
        return torch.where(self.gap.is_closed & inside, weight, self.gap.share.expand_as(weight))


class TwoEnds(nn.Module):
    """Carries the frames observed before and after a time to it, along the state's displacement.

    In a gap that is what the state says beside a part of the motion between them; after the last
    observed frame it is the state's alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transport = Transport()
        self.gain = nn.Parameter(torch.tensor([_GAIN]))
        self.log_steepness = nn.Parameter(torch.zeros(1))  # of the mixture's weight along time

    def forward(
        self, cells: Float[Tensor, "frames 2 rows columns"], gap: Gap, width: int
    ) -> CarriedPair:
        """Carry both frames to their time; `cells` are displacements in the frame's pixels."""
        whole = self.gain * gap.motion
        along = gap.freedom() * cells + gap.share * whole
        before = self.transport(along, gap.before, width)
        after = self.transport(along - whole, gap.after, width)
        return CarriedPair(before, after, gap, self.log_steepness.exp())
