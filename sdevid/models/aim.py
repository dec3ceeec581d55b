"""Where a control leads: the layers of the observed frame to their places in the frame that comes.

A layer's place is a mean over the cells of the state, so the least control that puts it right
pushes each cell in proportion to its weight. The places have no weights: layers are followed from
frame to frame by correlation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.carried_frame import CarriedFrame, Layers, carry, unfolded
from sdevid.models.layers import Points, displacement, middles, pushes, shares, stretched, weights
from sdevid.models.transport import AXES
from sdevid.types import Frames

Aims = Float[Tensor, "batch steps aim rows columns"]  # see `channels`
Moves = Float[Tensor, "batch time layers 2"]  # (x, y), half sides from the observed frame's place


def channels(layers: int) -> int:
    """Count channels of an aim: weights and pushes of the layers, their places, the step's rate."""
    return 4 * layers + 1


class Tracks(NamedTuple):
    """The layers of an observed frame, and how far each has come in the frames from it on."""

    layers: Layers
    moves: Moves

    def places(self) -> Float[Tensor, "batch time layers 2"]:
        """Give the middles of the layers, (x, y) in half sides from the picture's."""
        return middles(self.layers.sum(2))[:, None] + self.moves


@torch.no_grad()
def tracks(
    frames: Frames, observed: Float[Tensor, "batch channels height width"], count: int
) -> Tracks:
    """Follow the `count` layers of the observed frame, the first, through frames."""
    layers = shares(observed, count)[:, :, None] * observed[:, None]
    return Tracks(layers, followed(frames.nan_to_num(nan=0.0).float(), layers))


@torch.no_grad()
def aims(
    known: Tracks,
    carried: CarriedFrame,
    sides: tuple[int, int],
    dt: Float[Tensor, "batch steps"],
) -> Aims:
    """Find where layers should be at each step's end, as many steps a frame.

    Steps of no time (`dt`), and clips whose observed frame is empty, aim at nothing.
    """
    parts, count = known.layers, known.layers.shape[1]
    weight = weights(parts, sides)
    found = straightened(known.moves, middles(parts.sum(2)), carried.room(parts))
    found = stretched(found, sides[1] / 2, sides[0] / 2)  # cells
    steps = dt.shape[1] // (known.moves.shape[1] - 1)
    share = torch.arange(1, steps + 1, device=dt.device) / steps
    ends = torch.lerp(found[:, :-1, None], found[:, 1:, None], share[:, None, None])
    rate = torch.where(dt > 0, 1 / dt.clamp(min=1e-6), 0.0)[..., None, None]
    still = [
        each.flatten(1)[:, None].expand(-1, dt.shape[1], -1) for each in (weight, pushes(weight))
    ]
    still = [torch.unflatten(each, 2, (count, *sides)) for each in still]
    moving = torch.cat([ends.flatten(1, 2).flatten(2), rate.flatten(2)], dim=2)
    return torch.cat([*still, moving[..., None, None].expand(*moving.shape, *sides)], dim=2)


def followed(frames: Frames, layers: Layers) -> Moves:
    """Follow each layer through frames, the first of which is its own, by whole pixels."""
    across, down = 2 / frames.shape[4], 2 / frames.shape[3]  # half sides of a pixel
    at = [frames.new_zeros(*layers.shape[:2], AXES)]
    for frame in frames[:, 1:].unbind(1):
        step = displacement(frame, carry(layers, stretched(at[-1], across, down)))
        at.append((at[-1] - step).round())
    return stretched(torch.stack(at, dim=1), across, down)


def straightened(found: Moves, middle: Points, room: Points) -> Moves:
    """Continue moves behind the edges of the room that folded them, as straight as may be."""
    places = [middle, middle]
    for move in found[:, 1:].unbind(1):
        near = 2 * places[-1] - places[-2]
        places.append(unfolded(middle + move, room, near))
    return torch.stack(places[1:], dim=1) - middle[:, None]


def pull(
    z: Float[Tensor, "batch both rows columns"],
    drift: Float[Tensor, "batch size rows columns"],
    aim: Float[Tensor, "batch aim rows columns"],
) -> Float[Tensor, "batch 2 rows columns"]:
    """Compute what the velocities' drift lacks to put each layer where the step should end."""
    count, size = (aim.shape[1] - 1) // 4, z.shape[1] // 2
    weight, push, ends, rate = torch.split(aim, [count, count, AXES * count, 1], dim=1)
    dt = torch.where(rate > 0, 1 / rate.clamp(min=1e-6), 0.0)
    v = z[:, size : size + AXES] + drift[:, :AXES] * dt
    reached = torch.einsum("blhw,bahw->bla", weight, z[:, :AXES] + v * dt)
    short = torch.unflatten(ends[:, :, 0, 0], 1, (count, AXES)) - reached
    return torch.einsum("blhw,bla->bahw", push, short) * rate.square()
