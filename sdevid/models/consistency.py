"""The consistency module: what ties a frame to the one before it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.types import Frames


def frame_difference(
    decoded: Frames, real: Frames, counts: Bool[Tensor, "batch time"]
) -> Float[Tensor, " batch"]:
    """Sum over a clip the L1 distance between decoded and real changes from frame to frame.

    `counts` says which frames belong to the clip; a change counts where both its frames do.
    """
    apart = (decoded.diff(dim=1) - real.diff(dim=1)).abs().flatten(2).sum(2)
    return (apart * (counts[:, 1:] & counts[:, :-1])).sum(1)


def warp(image: Float[Tensor, "batch channels height width"], flow: Tensor) -> Tensor:
    """Read `image` at each pixel's place plus `flow` (batch, 2, height, width; x then y).

    Flow is in pixels, bilinear between them; outside the image its edge is read.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=image.device, dtype=torch.float32)
    columns = torch.arange(width, device=image.device, dtype=torch.float32)
    x = (columns + flow[:, 0] + 0.5) * 2 / width - 1
    y = (rows[:, None] + flow[:, 1] + 0.5) * 2 / height - 1
    grid = torch.stack([x, y], dim=-1)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


class PreviousFrame(NamedTuple):
    """A decoded frame that the next ones go on from."""

    features: Float[Tensor, "batch 1 channels height width"]
    frame: Frames  # one


class WarpHead(nn.Module):
    """x_i = M warp(x_{i-1}, F) + (1 - M) I_i, from the first decoded frame on.

    `head` makes flow F and mask M from the decoder's features of both frames. At the start F is 0
    and M is 0.12 everywhere, so that the image I carries the gradient first.
    """

    def __init__(self, head: nn.ConvTranspose2d | nn.Conv2d) -> None:
        super().__init__()
        self.head = head
        nn.init.zeros_(head.weight)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
        self.mask_start = -2.0

    def forward(
        self,
        features: Float[Tensor, "batch time features rows columns"],
        images: Frames,
        before: PreviousFrame | None = None,
    ) -> Frames:
        """Compose each frame from the one before it, starting at `before` or at the first image."""
        known = 0 if before is None else 1
        if before is not None:
            features = torch.cat([before.features, features], dim=1)
            images = torch.cat([before.frame, images], dim=1)
        pairs = torch.cat([features[:, :-1], features[:, 1:]], dim=2)
        moves = self.head(pairs.flatten(0, 1)).float().unflatten(0, pairs.shape[:2])
        frames = [images[:, 0]]
        for image, move in zip(images[:, 1:].unbind(1), moves.unbind(1), strict=True):
            mask = (move[:, 2:] + self.mask_start).sigmoid()
            frames.append(mask * warp(frames[-1], move[:, :2]) + (1 - mask) * image)
        return torch.stack(frames[known:], dim=1)
