"""Paths that walls reflect: which of the places that fold to one another a path came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def nearest_image(images: Sequence[Tensor], near: Tensor) -> Tensor:
    """Choose of several images of each place, of one shape, the one nearest to `near`."""
    each = torch.stack(list(images))
    nearest = (each - near).abs().argmin(0, keepdim=True)
    return each.gather(0, nearest)[0]
