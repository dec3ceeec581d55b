"""Floating-point operations of a training step, counted by running one clip."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdevid.config import Config
from sdevid.models import text
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.train.summary.size_table import model_on_meta
from sdevid.types import Batch

META = torch.device("meta")


class Flops(NamedTuple):
    """Operations of one clip in products of matrices, convolutions and attention."""

    forward: int
    backward: int

    def __str__(self) -> str:
        total = self.forward + self.backward
        return (
            f"floating-point operations a clip: {total / 1e9:,.4g} billion = "
            f"{self.forward / 1e9:,.4g} forward + {self.backward / 1e9:,.4g} backward "
            "(products, convolutions and attention, counted by shapes)"
        )


def count_flops(config: Config) -> Flops:
    """Count the operations of one clip's loss and gradients, by shapes alone: on the meta device.

    The solver goes step by step, so that PyTorch sees every product.
    """
    sde = config.sde.model_copy(update={"kernels": "reference"})
    config = config.model_copy(update={"sde": sde})
    objective, frames = model_on_meta(config), config.sequence_length
    video = torch.zeros(1, frames, *config.frame_shape, config.channels, dtype=torch.uint8)
    batch = Batch(video, config.frame_ticks(frames)[None], torch.zeros(1).long(), ("",), ("a",))
    words = text.text_inputs(text.tokenizer(config), batch, META)
    inputs = {"video": batch.video, "ticks": batch.ticks, "serial": batch.serial}
    inputs = {name: tensor.to(META) for name, tensor in inputs.items()}
    reading = cast(ClipObjective, objective).reading(batch)
    with reading, FlopCounterMode(display=False) as counter:
        terms = objective(**inputs, kl_weight=1.0, **words)
        forward = counter.get_total_flops()
        terms["loss"].backward()
    return Flops(forward, counter.get_total_flops() - forward)
