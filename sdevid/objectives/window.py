"""The frames of each clip that the state's path passes through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor


class Window(NamedTuple):
    """The part of each clip that is predicted: from the last observed frame to the end.

    Clips with less to predict are filled up with their last frame, which is then not valid.
    """

    indices: Int64[Tensor, "batch time"]  # into the clip
    valid: Bool[Tensor, "batch time"]
    reference: Int64[Tensor, "batch 1"]  # index of the frame at which the state starts

    @classmethod
    def after(cls, observed: Bool[Tensor, "batch time"]) -> Window:
        """Start at the last of the observed frames that begin a clip, or at its first frame."""
        frames = observed.shape[1]
        leading = observed.long().cumprod(1).sum(1, keepdim=True)
        reference = (leading - 1).clamp(0, max(0, frames - 2))
        indices = reference + torch.arange(frames, device=observed.device)
        return cls(indices.clamp(max=frames - 1), indices < frames, reference)

    def cut(self, clip: Shaped[Tensor, "batch time *any"]) -> Shaped[Tensor, "batch time *any"]:
        """Take the window's part of each clip."""
        rows = torch.arange(len(clip), device=clip.device)[:, None]
        return clip[rows, self.indices]

    def intervals(self) -> Int64[Tensor, " batch"]:
        """Count the valid intervals between frames, at least 1."""
        return (self.valid.sum(1) - 1).clamp(min=1)
