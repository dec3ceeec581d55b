"""Exponential moving average of the weights, on the shard of them that each rank holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class EMA:
    """Average of `weights`, float32 tensors that the optimizer changes in place.

    Works on ZeRO's partitions as they lie, so nothing is gathered: element by element it is the
    average that a plain copy of the model would hold.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.weights = list(weights)
        self.average = [w.detach().clone() for w in weights]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer step `step`, counted from 1.

        The decay starts at 2/11 and rises to `decay`, so that the untrained weights are soon
        forgotten.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        if self.average:  # under ZeRO 0 one rank holds it all
            torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - decay)
