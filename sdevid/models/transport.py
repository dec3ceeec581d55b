"""The last observed frame, carried along a displacement that the state holds in pixels.

The first two channels of a map latent of second order are a displacement (x, y), and have a
velocity: what moves goes on moving, and noise drives the velocity. A frame is read where it came
from (semi-Lagrangian: x_t(p) = x_0(p - D_t(p))); a kernel spreads each cell's displacement, and so
its noise, over the cells around it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.models.consistency import warp
from sdevid.types import Frames

MIDDLE = 0.5  # grey, which frames of pixels are seen less
AXES = 2  # channels of the state that are the displacement: x, then y
CARRY = 1.0  # cells, sd of the kernel that spreads a cell's displacement
_FORGET = 0.7  # weight of a pair of frames beside the next one
_BLUR = 0.75  # half-size pixels, of the frames whose slopes are taken
_REACH = 4  # pixels beside a half-size one that its slopes depend on
_WINDOW = 0.8  # cells, sd of the window over which motion is taken as one
_SHRINK = 0.2  # of the mean square slope: how far a cell's motion is drawn to the frame's mean
_LEAST = 1e-8  # added to squares of slopes, so that a blank film has no motion
_EDGE = 4e-3  # share from which the odds of a carried value are taken: one grey level


class MovingFrame(NamedTuple):
    """The last observed frame of each clip, 0 in a clip without one."""

    frame: Float[Tensor, "batch channels height width"]  # less the encoder's middle
    motion: Float[Tensor, "batch 2 rows columns"]  # x and y, pixels a training frame

    def rows(self, index: Tensor | slice) -> MovingFrame:
        """Select clips."""
        return MovingFrame(self.frame[index], self.motion[index])


class Motion(nn.Module):
    """Motion of each frame by brightness constancy (Lucas & Kanade 1981), from the frames before.

    Slopes are those of the mean of two frames at half size; the normal equations of older pairs
    count less, and a cell without contrast moves as the whole frame does. Without weights.
    """

    def __init__(self, sides: tuple[int, int]) -> None:
        super().__init__()
        self.sides = sides

    @torch.no_grad()
    def forward(
        self, frames: Frames, times: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time 2 rows columns"]:
        """Estimate the motion at each frame in pixels a unit of time, 0 at the first.

        `times` rise. What was not observed (NaN) in either frame of a pair counts nothing.
        """
        batch, time = frames.shape[:2]
        still = frames.new_zeros(batch, AXES, *self.sides)
        products = self._products(frames, times) if time > 1 else still.new_zeros(batch, 0)
        total, motion = torch.zeros((), device=frames.device), [still]
        for pair in products.unbind(1):
            total = _FORGET * total + pair
            motion.append(2 * _solved(total))
        return torch.stack(motion[:time], dim=1)

    def _products(
        self, frames: Frames, times: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch pairs 5 rows columns"]:
        """Average xx, xy, yy, -xt, -yt over the window around each cell, x and y of half size."""
        seen = frames.isnan().logical_not().all(dim=2).float()
        half = functional.avg_pool2d(frames.nan_to_num(nan=0.0).mean(2), 2)
        half = blur(half, _BLUR)
        unseen = functional.pad(1 - seen, [_REACH] * 4, value=1.0)  # as what lies outside is
        holes = functional.max_pool2d(unseen, 2 + 2 * _REACH, stride=2)
        counts = ((holes[:, 1:] + holes[:, :-1]) == 0).float()
        middle = 0.5 * (half[:, 1:] + half[:, :-1])
        dt = times.diff(dim=1)[..., None, None]
        rate = torch.where(dt > 0, half.diff(dim=1) / dt.clamp(min=1e-6), 0.0)
        y, x = torch.gradient(middle, dim=(2, 3))
        products = torch.stack([x * x, x * y, y * y, -x * rate, -y * rate], dim=2)
        cells = functional.adaptive_avg_pool2d(
            (products * counts[:, :, None]).flatten(0, 1), self.sides
        )
        return torch.unflatten(blur(cells, _WINDOW), 0, frames[:, 1:].shape[:2])


def _solved(
    products: Float[Tensor, "batch 5 rows columns"],
) -> Float[Tensor, "batch 2 rows columns"]:
    """Solve the normal equations of each cell, drawn to the solution of their mean."""
    mean = products.mean((2, 3), keepdim=True)
    level = mean[:, :1] + mean[:, 2:3]
    whole = _ridge(mean, 1e-3 * level + _LEAST, torch.zeros_like(mean[:, :2]))
    return _ridge(products, _SHRINK * level + _LEAST, whole)


def _ridge(products: Tensor, ridge: Tensor, toward: Tensor) -> Tensor:
    """Minimise |A v - b|^2 + ridge |v - toward|^2, given A'A and A'b."""
    xx, xy, yy, xt, yt = torch.split(products, 1, dim=1)
    u, v = torch.split(toward, 1, dim=1)
    xx, yy, xt, yt = xx + ridge, yy + ridge, xt + ridge * u, yt + ridge * v
    determinant = xx * yy - xy * xy
    solved: Tensor = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / determinant
    return solved


class Transport(nn.Module):
    """Carries maps of the last observed frame along the displacement of each later frame."""

    def forward(
        self,
        cells: Float[Tensor, "frames 2 rows columns"],
        maps: tuple[Float[Tensor, "batch _ _ _"], ...],
        width: int,
    ) -> tuple[Float[Tensor, "frames _ _ _"], ...]:
        """Carry each of `maps`, whose size is that of a frame of this `width` or a part of it.

        `cells` are displacements in the frame's pixels, clip by clip as many; the kernel keeps a
        uniform one as it is. From outside the picture its edge comes in.
        """
        spread = blur(cells, CARRY)
        carried = []
        for each in maps:
            size = each.shape[-2:]
            field = functional.interpolate(spread, size, mode="bilinear", align_corners=False)
            repeated = each.repeat_interleave(len(cells) // len(each), 0)
            carried.append(warp(repeated, field * (-size[1] / width)))
        return tuple(carried)


class CarriedLast(NamedTuple):
    """The last observed frame, carried to each of some times."""

    frame: Float[Tensor, "frames channels height width"]  # less the encoder's middle

    def changed(self, drawn: Float[Tensor, "frames channels height width"]) -> Tensor:
        """Compute the log odds of the frames, which the decoder shifts."""
        return drawn + odds(self.frame, MIDDLE)


def odds(carried: Float[Tensor, "*frames"], middle: float) -> Float[Tensor, "*frames"]:
    """Compute log odds of a carried frame, which the decoder shifts; 0 where there is none."""
    return (carried + middle).clamp(_EDGE, 1 - _EDGE).logit()


def blur(maps: Float[Tensor, "*batch rows columns"], sd: float) -> Tensor:
    """Blur by a Gaussian kernel of this sd that sums to 1; beyond the edge the edge goes on."""
    radius = math.ceil(3 * sd)
    at = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (at / sd) ** 2)
    kernel = kernel / kernel.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    tall = functional.pad(flat, (0, 0, radius, radius), mode="replicate")
    tall = functional.conv2d(tall, kernel.view(1, 1, -1, 1))
    wide = functional.pad(tall, (radius, radius, 0, 0), mode="replicate")
    out: Tensor = functional.conv2d(wide, kernel.view(1, 1, 1, -1)).view(maps.shape)
    return out
