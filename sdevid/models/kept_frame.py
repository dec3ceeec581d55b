"""The last observed frame where it stands, kept by place as far as the state says.

What a frame showed is copied, not drawn anew from features, so that a new video keeps its own
things (a mask between a copy and what is drawn: Vondrick et al. 2016, for a static ground).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.transport import MIDDLE, odds

_KEPT = 3.0  # log odds of the share that is kept, before training


class KeptLast(NamedTuple):
    """The last observed frame beside each of some frames, 0 where a clip has none."""

    frame: Float[Tensor, "frames channels height width"]  # less the encoder's middle
    is_pixels: bool

    @classmethod
    def beside(cls, times: int, frame: Tensor, *, is_pixels: bool) -> KeptLast:
        """Repeat the frame of each clip for as many frames as are decoded of it."""
        return cls(frame.repeat_interleave(times, 0), is_pixels)

    def changed(self, drawn: Float[Tensor, "frames outputs height width"]) -> Tensor:
        """Compute log odds of the frames, or latents; the last channel drawn says what is kept."""
        kept = odds(self.frame, MIDDLE) if self.is_pixels else self.frame
        out: Tensor = drawn[:, :-1] + drawn[:, -1:].sigmoid() * kept
        return out


@torch.no_grad()
def keep_at_first(bias: Tensor) -> None:
    """Set the bias of a decoder's last layer so that before training nearly all is kept."""
    bias[-1] = _KEPT
