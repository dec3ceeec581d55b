"""The last observed frame, carried in layers by displacements that are read from the state.

The frame's values are shared out to a few layers, each of which moves as a whole. So what was seen
keeps its shape, and the state only says where it is (layers: Wang & Adelson 1994).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.encoder import Maps

_ROUNDS = 5  # of soft k-means
_SHARP = -0.5 / 0.15**2  # of soft k-means, per squared half side
_FARTHEST = 0.75  # half sides from the middle of the picture to a layer's middle, at most
_LEAST = 1e-4  # of the values that a cell or a layer is weighted by

Picture = Float[Tensor, "frames channels height width"]
Layers = Float[Tensor, "batch layers channels height width"]
Points = Float[Tensor, "batch layers 2"]  # (x, y), half sides from the middle of the picture


class CarriedFrame(nn.Module):
    """x_i = sum_l moved(layer_l of the observed frame, d_l(z_i)).

    Layers are the soft k-means clusters of the frame's values. They are not learnt: learnt ones
    overlap, so that each thing is drawn twice, which a score in pixels rewards. Every cell of the
    state says how far what was seen there has come; a layer goes as far as its cells do on average,
    weighted by its values there. Before training almost nothing moves.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = config.encoder.carried_layers
        self.motion = nn.Linear(config.sde.latent_size, 2)
        nn.init.normal_(self.motion.weight, std=0.1)
        nn.init.zeros_(self.motion.bias)

    def forward(self, z: Float[Tensor, "frames latent rows columns"], skip: Maps) -> Picture:
        """Draw the frames of `z`, as many of each clip, clip by clip.

        `skip` has the observed frame with a channel of ones (0 where there is none) before its
        features.
        """
        frame = skip[0][:, :-1].float()
        layers = self.shares(frame)[:, :, None] * frame[:, None]
        moved = self.displacement(z, layers)
        return carry(layers.repeat_interleave(len(z) // len(frame), 0), moved).sum(1)

    def shares(
        self, frame: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch layers height width"]:
        """Compute each layer's share of every place of the observed frame; they sum to 1."""
        centres = clusters(frame.abs().sum(1), self.layers)
        return (apart(centres, frame) * _SHARP).softmax(1)

    def displacement(
        self, z: Float[Tensor, "frames latent rows columns"], layers: Layers
    ) -> Float[Tensor, "frames layers 2"]:
        """Compute how far each layer has come, (x, y) in half sides of the picture.

        Its middle stays within the picture: a layer out of sight would get no gradient back.
        """
        times, values = len(z) // len(layers), layers.abs().sum(2)
        middle = middles(values).repeat_interleave(times, 0)
        field = self.motion(z.flatten(2).transpose(1, 2)).float()  # (frames, cells, 2)
        weight = (
            functional.adaptive_avg_pool2d(values, (z.shape[2], z.shape[3])).flatten(2) + _LEAST
        )
        weight = (weight / weight.sum(2, keepdim=True)).repeat_interleave(times, 0)
        return within(middle + weight @ field) - middle


@torch.no_grad()
def clusters(values: Float[Tensor, "batch height width"], count: int) -> Points:
    """Find `count` centres of the values by soft k-means, from points along their longest axis."""
    total = values.flatten(1).sum(1)[:, None] + _LEAST
    middle = middles(values[:, None])[:, 0]
    x, y = (_places(size, values.device) for size in (values.shape[2], values.shape[1]))
    dx, dy = x - middle[:, :1], y - middle[:, 1:]
    xx = (values.sum(1) * dx.square()).sum(1)
    yy = (values.sum(2) * dy.square()).sum(1)
    xy = torch.einsum("bhw,bh,bw->b", values, dy, dx)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    axis = torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]
    size = ((xx + yy)[:, None] / total).sqrt()[..., None]
    steps = torch.linspace(-1, 1, count, device=values.device)[:, None] if count > 1 else 0.0
    centres = middle[:, None] + steps * size * axis
    for _ in range(_ROUNDS):
        shares = (apart(centres, values[:, None]) * _SHARP).softmax(1)
        centres = middles(shares * values[:, None])
    return centres


def apart(centres: Points, like: Tensor) -> Float[Tensor, "batch layers height width"]:
    """Compute the squared distance of every place of a picture `like` this from each centre."""
    x, y = (_places(size, like.device) for size in (like.shape[-1], like.shape[-2]))
    across = (x - centres[..., :1]).square()[:, :, None]
    return across + (y - centres[..., 1:]).square()[..., None]


def middles(values: Float[Tensor, "batch layers height width"]) -> Points:
    """Compute the middle of each layer's values; of none at all, that of the picture."""
    x, y = (_places(size, values.device) for size in (values.shape[3], values.shape[2]))
    total = values.sum((2, 3)) + _LEAST
    across, down = (values.sum(2) * x).sum(2), (values.sum(3) * y).sum(2)
    return torch.stack([across / total, down / total], dim=2)


def within(place: Tensor) -> Tensor:
    """Bound places to the middle of the picture, (-0.75, 0.75): within 1 % as they are to 0.5."""
    far = (place / _FARTHEST).clamp(-100, 100)
    return _FARTHEST * far / (1 + far.pow(8)).pow(1 / 8)


def carry(layers: Layers, moved: Points) -> Layers:
    """Move each layer, bilinear between places, by (x, y) in half sides; 0 comes from outside."""
    flat = layers.flatten(0, 1)
    theta = torch.eye(2, 3, device=flat.device).repeat(len(flat), 1, 1)
    theta[:, :, 2] = -moved.flatten(0, 1)
    grid = functional.affine_grid(theta, list(flat.shape), align_corners=False)
    carried = functional.grid_sample(flat, grid, align_corners=False)
    return carried.view_as(layers)


def _places(size: int, device: torch.device) -> Float[Tensor, " size"]:
    """Give the middles of `size` pixels, in half sides from the middle of the picture."""
    return (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
