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
    """The last observed frame beside others: its log odds, or an autoencoder's latents."""

    kept: Float[Tensor, "frames channels height width"]  # 0 where a clip has none

    @classmethod
    def beside(
        cls, times: int, frame: Float[Tensor, "batch channels height width"], *, is_pixels: bool
    ) -> KeptLast:
        """Repeat each clip's frame, less the encoder's middle, for `times` frames decoded of it."""
        kept = odds(frame, MIDDLE) if is_pixels else frame
        return cls(kept.repeat_interleave(times, 0))

    def changed(self, drawn: Float[Tensor, "frames outputs height width"]) -> Tensor:
        """Compute log odds of the frames, or latents; the last channel drawn says what is kept."""
        out: Tensor = drawn[:, :-1] + drawn[:, -1:].sigmoid() * self.kept
        return out


@torch.no_grad()
def keep_at_first(bias: Tensor) -> None:
    """Set the bias of a decoder's last layer so that before training nearly all is kept."""
    bias[-1] = _KEPT
