"""Layers of a frame: soft k-means of its values, and how far each has come since the frame before.

Neither has weights. A layer is looked for in the frame before by correlation (Brown 1992), which
finds moves of several pixels, where brightness constancy sees those of about one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_ROUNDS = 5  # of soft k-means
_SHARP = -0.5 / 0.15**2  # of soft k-means, per squared half side
_LEAST = 1e-4  # of the values that a layer is weighted by
_RIDGE = 1e-3  # of the weights' squares, where two layers lie in the same cells
_FAINT = 1e-6  # added to them, where there is no layer
_FEW = 4  # power of a cell's values of its own; the larger, the fewer cells count
_REACH = 0.1  # of the shorter side, the farthest that a layer comes between two frames
_SURE = 0.02  # of a layer's squared values: a correlation this far below the best counts 1/e

Frame = Float[Tensor, "batch channels height width"]
Shares = Float[Tensor, "batch layers height width"]
Points = Float[Tensor, "batch layers 2"]  # (x, y), half sides from the middle of the picture


def shares(frame: Frame, count: int) -> Shares:
    """Compute each of `count` layers' share of every place of a frame; they sum to 1."""
    return (apart(clusters(frame.abs().sum(1), count), frame) * _SHARP).softmax(1)


def weights(
    layers: Float[Tensor, "batch layers channels height width"], sides: tuple[int, int]
) -> Float[Tensor, "batch layers cells"]:
    """Compute how much each cell of the state counts for where a layer is; they sum to 1, or to 0.

    Those count that have many of the layer's values and few of another's: noise in each cell costs
    nats of its own, and two layers that hang on the same cells cannot part.
    """
    values = functional.adaptive_avg_pool2d(layers.abs().sum(2), sides).flatten(2)
    own = values.square() / (values.sum(1, keepdim=True) + _LEAST)
    own = (own / own.amax(2, keepdim=True).clamp(min=_LEAST)).pow(_FEW)
    return own / own.sum(2, keepdim=True).clamp(min=_LEAST)


def pushes(
    weight: Float[Tensor, "batch layers cells"],
) -> Float[Tensor, "batch layers cells"]:
    """Compute the least change of the cells that moves each layer, and no other, by 1."""
    gram = weight @ weight.transpose(1, 2)
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).sum(1) + _FAINT
    eye = torch.eye(weight.shape[1], device=gram.device)
    # Not `solve`, which waits for a GPU to say that the matrix is no singular one.
    solved: Tensor = torch.linalg.solve_ex(gram + ridge[:, None, None] * eye, weight)[0]
    return solved


def stretched(
    points: Float[Tensor, "*batch 2"], across: float, down: float
) -> Float[Tensor, "*batch 2"]:
    """Multiply x and y by a number each, with nothing copied from the host."""
    return torch.stack([points[..., 0] * across, points[..., 1] * down], -1)


@torch.no_grad()
def velocities(
    before: Frame,
    frame: Frame,
    apart_by: Float[Tensor, " batch"],
    count: int,
    sides: tuple[int, int],
) -> Float[Tensor, "batch 2 rows columns"]:
    """Estimate how fast the layers at each cell of a frame move, (x, y) in cells a unit of time.

    `before` is the frame `apart_by` units of time earlier; where that is 0 nothing moves.
    """
    parts = shares(frame, count)
    layers = parts[:, :, None] * frame[:, None]
    moved = displacement(before, layers)
    since = apart_by[:, None, None]
    rate = torch.where(since > 0, moved / since.clamp(min=1e-6), 0.0)
    in_cells = stretched(rate, sides[1] / frame.shape[3], sides[0] / frame.shape[2])
    field = torch.einsum("blhw,bla->bahw", functional.adaptive_avg_pool2d(parts, sides), in_cells)
    weight = weights(layers, sides)
    short = in_cells - torch.einsum("blc,bac->bla", weight, field.flatten(2))
    return field + torch.einsum("blc,bla->bac", pushes(weight), short).view_as(field)


def displacement(
    before: Frame, layers: Float[Tensor, "batch layers channels height width"]
) -> Float[Tensor, "batch layers 2"]:
    """Estimate how far each layer has come since the frame `before`, (x, y) in pixels.

    Its correlation with that frame is taken at every whole shift up to a tenth of the side; the
    estimate is the mean of the shifts, weighted by how near they come to the best.
    """
    batch, count = layers.shape[:2]
    reach = max(1, round(_REACH * min(before.shape[2:])))
    padded = functional.pad(before, [reach] * 4).flatten(0, 1)[None]
    found = functional.conv2d(padded, layers.flatten(0, 1), groups=batch)[0]
    found = found.view(batch, count, -1)
    sure = _SURE * layers.square().sum((2, 3, 4))[..., None] + _LEAST
    weight = ((found - found.amax(2, keepdim=True)) / sure).softmax(2)
    back = torch.arange(reach, -reach - 1, -1, device=before.device, dtype=found.dtype)
    weight = torch.unflatten(weight, 2, (len(back), -1))
    return torch.stack([weight.sum(2) @ back, weight.sum(3) @ back], dim=2)


@torch.no_grad()
def clusters(values: Float[Tensor, "batch height width"], count: int) -> Points:
    """Find `count` centres of the values by soft k-means, from points along their longest axis."""
    total = values.flatten(1).sum(1)[:, None] + _LEAST
    middle = middles(values[:, None])[:, 0]
    x, y = (places(size, values.device) for size in (values.shape[2], values.shape[1]))
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
        own = (apart(centres, values[:, None]) * _SHARP).softmax(1)
        centres = middles(own * values[:, None])
    return centres


def apart(centres: Points, like: Tensor) -> Float[Tensor, "batch layers height width"]:
    """Compute the squared distance of every place of a picture `like` this from each centre."""
    x, y = (places(size, like.device) for size in (like.shape[-1], like.shape[-2]))
    across = (x - centres[..., :1]).square()[:, :, None]
    return across + (y - centres[..., 1:]).square()[..., None]


def middles(values: Float[Tensor, "batch layers height width"]) -> Points:
    """Compute the middle of each layer's values; of none at all, that of the picture."""
    x, y = (places(size, values.device) for size in (values.shape[3], values.shape[2]))
    total = values.sum((2, 3)) + _LEAST
    across, down = (values.sum(2) * x).sum(2), (values.sum(3) * y).sum(2)
    return torch.stack([across / total, down / total], dim=2)


def places(size: int, device: torch.device) -> Float[Tensor, " size"]:
    """Give the middles of `size` pixels, in half sides from the middle of the picture."""
    return (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
