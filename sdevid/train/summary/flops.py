"""Floating-point operations of a training step, counted by running one clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdevid import objectives
from sdevid.config import Config
from sdevid.models import text
from sdevid.types import Batch


class Flops(NamedTuple):
    """Operations of one clip in products of matrices, convolutions and attention."""

    forward: int
    backward: int

    def __str__(self) -> str:
        total = self.forward + self.backward
        return (
            f"floating-point operations a clip: {total / 1e9:,.4g} billion = "
            f"{self.forward / 1e9:,.4g} forward + {self.backward / 1e9:,.4g} backward "
            "(products, convolutions and attention, counted on one clip here)"
        )


def count_flops(config: Config) -> Flops:
    """Count the operations of one clip's loss and gradients, on the CPU.

    The solver goes step by step, so that PyTorch sees every product.
    """
    sde = config.sde.model_copy(update={"kernels": "reference"})
    config = config.model_copy(update={"sde": sde})
    objective, frames = objectives.build(config), config.sequence_length
    video = torch.zeros(1, frames, *config.frame_shape, config.channels, dtype=torch.uint8)
    batch = Batch(video, config.frame_ticks(frames)[None], torch.zeros(1).long(), ("",), ("a",))
    words = text.text_inputs(text.tokenizer(config), batch, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        terms = objective(batch.video, batch.ticks, batch.serial, kl_weight=1.0, **words)
        forward = counter.get_total_flops()
        terms["loss"].backward()
    return Flops(forward, counter.get_total_flops() - forward)
