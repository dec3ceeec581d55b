"""A training step on the pretended device, and what they ask of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pretended_cuda import PretendedCuda, on_device, pretended_cuda

from sdevid import objectives
from sdevid.config import Config, load
from sdevid.types import frame_ticks

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 2


class Asked(NamedTuple):
    """What one step asks of the device, in a run's second step, when constants lie there."""

    launches: int
    waits: dict[str, int]  # by what waits and where
    copies: dict[str, int]  # from pageable memory of the host, which block


def train(name: str, *overrides: str) -> Asked:
    """The forward and backward pass of two clips of the config `name`."""
    config = load(ROOT / "configs" / f"{name}.yaml", overrides)
    with pretended_cuda() as device, _precision(config):
        with torch.device("meta"):
            objective = objectives.build(config)
        on_device(objective)
        inputs = _inputs(config)
        ticks = frame_ticks(config.sequence_length).expand(CLIPS, -1)
        for _ in range(2):
            device.clear()
            with objective.model.reading(ticks):
                objective(**inputs)["loss"].backward()
        return _asked(device)


def _precision(config: Config) -> Any:
    """The device has no autocast of its own here: that of the host has the same parts."""
    if config.precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def _asked(device: PretendedCuda) -> Asked:
    return Asked(sum(device.launches.values()), dict(device.waits), dict(device.copies))


def _inputs(config: Config) -> dict[str, torch.Tensor]:
    side, frames = config.frame_size, config.sequence_length
    shape = (CLIPS, frames, side, side, config.channels)
    inputs = {
        "video": torch.zeros(shape, dtype=torch.uint8, device="cuda"),
        "ticks": torch.zeros(CLIPS, frames, dtype=torch.int64, device="cuda"),
        "serial": torch.zeros(CLIPS, dtype=torch.int64, device="cuda"),
        "kl_weight": torch.ones((), device="cuda"),
    }
    if config.text.encoder != "none":
        length = (CLIPS, config.text.length)
        inputs["tokens"] = torch.zeros(length, dtype=torch.int64, device="cuda")
        inputs["mask"] = torch.zeros(length, dtype=torch.bool, device="cuda")
    return inputs
