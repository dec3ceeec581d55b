"""The last observed frame, carried in layers by displacements that are read from the state.

The frame's values are shared out to a few layers, each of which moves as a whole. So what was seen
keeps its shape, and the state only says where it is (layers: Wang & Adelson 1994).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.encoder import Maps
from sdevid.models.layers import Points, middles, shares, stretched, weights
from sdevid.models.reflection import Walls, nearest_image, walls_of
from sdevid.models.transport import AXES

_LEAST = 0.05  # half sides from the middle of the picture that any layer may come
_REACH = 0.75  # half sides that layers come from the middle, before training
_OUTSIDE = 0.02  # share of places that may lie beyond, where layers were mistaken for others
_FAR = 1e3  # cells, of walls where there is no observed frame
_IMAGES = ((1, (-4, 0, 4)), (-1, (-2, 2)))  # sign of a place, and rooms that are added

Picture = Float[Tensor, "frames channels height width"]
Layers = Float[Tensor, "batch layers channels height width"]


class CarriedFrame(nn.Module):
    """x_i = sum_l moved(layer_l of the observed frame, d_l(z_i)).

    Layers are the soft k-means clusters of the frame's values. They are not learnt: learnt ones
    overlap, so that each thing is drawn twice, which a score in pixels rewards. The first two
    channels of every cell of the state are how far what was seen there has come, (x, y) in cells; a
    layer goes as far as the cells do in which most of it lies.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = config.encoder.carried_layers
        self.reach = nn.Parameter(torch.full((AXES,), _REACH))  # half sides

    def forward(self, z: Float[Tensor, "frames latent rows columns"], skip: Maps) -> Picture:
        """Draw the frames of `z`, as many of each clip, clip by clip.

        `skip` has the observed frame with a channel of ones (0 where there is none) before its
        features.
        """
        frame = skip[0][:, :-1].float()
        layers = shares(frame, self.layers)[:, :, None] * frame[:, None]
        moved = self.displacement(z, layers)
        return carry(layers.repeat_interleave(len(z) // len(frame), 0), moved).sum(1)

    def displacement(
        self, z: Float[Tensor, "frames latent rows columns"], layers: Layers
    ) -> Float[Tensor, "frames layers 2"]:
        """Compute how far each layer has come, (x, y) in half sides of the picture.

        A layer that meets the edge of its room turns back: out of sight it would get no gradient.
        """
        times = len(z) // len(layers)
        middle = middles(layers.abs().sum(2)).repeat_interleave(times, 0)
        room = self.room(layers).repeat_interleave(times, 0)
        cells = z[:, :AXES].flatten(2).transpose(1, 2).float()
        field = stretched(cells, 2 / z.shape[3], 2 / z.shape[2])  # half sides
        weight = weights(layers, (z.shape[2], z.shape[3])).repeat_interleave(times, 0)
        return folded(middle + weight @ field, room) - middle

    @torch.no_grad()
    def walls(self, skip: Maps, sides: tuple[int, int]) -> Walls:
        """Compute where the layer of each cell of the state turns back, if a frame was observed."""
        frame, exists = skip[0][:, :-1].float(), skip[0][:, -1:, :1, :1]
        parts = shares(frame, self.layers)
        layers = parts[:, :, None] * frame[:, None]
        both = [
            stretched(points, sides[1] / 2, sides[0] / 2)
            for points in (middles(layers.abs().sum(2)), self.room(layers))
        ]
        pooled = functional.adaptive_avg_pool2d(parts, sides)
        middle, room = torch.einsum("blhw,bla->bahw", pooled, torch.cat(both, dim=2)).chunk(2, 1)
        return walls_of(middle * exists, torch.where(exists > 0, room, _FAR))

    def room(self, layers: Layers) -> Points:
        """Compute how far from the middle of the picture the middle of each layer can come.

        That is learnt (`misfit`), and no less than where it is.
        """
        middle = middles(layers.abs().sum(2))
        return torch.maximum(self.reach.detach(), middle.abs()).clamp(min=_LEAST)

    def misfit(
        self,
        place: Float[Tensor, "batch time layers 2"],
        valid: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, " batch"]:
        """Compute a loss of the reach whose least is where `_OUTSIDE` of the places lie beyond."""
        beyond = place.abs() - self.reach
        each = (beyond.relu() + _OUTSIDE * (-beyond).relu()).sum((2, 3))
        return (each * valid).sum(1)


def folded(place: Tensor, room: Tensor) -> Tensor:
    """Reflect places into (-room, room), as often as it takes."""
    phase = torch.remainder(place + room, 4 * room)
    return torch.where(phase < 2 * room, phase - room, 3 * room - phase)


def unfolded(place: Points, room: Points, near: Points) -> Points:
    """Find the place nearest to `near` that `folded` brings to `place`, after two walls at most."""
    place = torch.maximum(torch.minimum(place, room), -room)
    images = [side * place + turn * room for side, turns in _IMAGES for turn in turns]
    return nearest_image(images, near)


def carry(layers: Layers, moved: Points) -> Layers:
    """Move each layer, bilinear between places, by (x, y) in half sides; 0 comes from outside."""
    flat = layers.flatten(0, 1)
    theta = torch.eye(2, 3, device=flat.device).repeat(len(flat), 1, 1)
    theta[:, :, 2] = -moved.flatten(0, 1)
    grid = functional.affine_grid(theta, list(flat.shape), align_corners=False)
    carried = functional.grid_sample(flat, grid, align_corners=False)
    return carried.view_as(layers)
