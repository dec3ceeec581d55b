"""The startup summary of a run, and the arithmetic that `--dry-run` prints instead of training."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from sdevid.checkpoint import Progress
from sdevid.config import Config, dump
from sdevid.data.stream import micro_batch_size
from sdevid.models import trajectory
from sdevid.models.attention import packed_backend
from sdevid.train import compiled
from sdevid.train.engine import Engine
from sdevid.train.graph import train_graph
from sdevid.train.summary.memory_budget import memory_table
from sdevid.train.summary.size_table import model_on_meta, size_table


def announce(engine: Engine, progress: Progress, total: int, text_summary: Sequence[str]) -> None:
    """Print the first lines of a run, on the main rank; `text_summary` is of text and pictures."""
    config, world = engine.config, engine.world
    parameters = sum(math.prod(shape) for shape in engine.shapes.values())
    micro = micro_batch_size(config, world.size)
    device = world.device.type
    if device == "cuda":
        device = f"{torch.cuda.get_device_name(world.device)} (cuda)"
    solver = "no SDE solve in training"
    if config.sde.latent == "particles":
        solver = "noise shared over particles, step by step in PyTorch"
    elif config.capabilities.simulates:
        solver = str(trajectory.training_choice(config, world.device, micro))
    world.say(
        f"{config.model_type}: {parameters:,} parameters, {config.precision}; device {device}, "
        f"attention {_attention(config, world.device.type)}; {solver}"
        f"{compiled.compiled_summary(config)}; {train_graph.describe(config, world.device)}"
    )
    world.say(
        f"world {world.size}, ZeRO {config.zero_stage}; {config.batch_size} clips a step "
        f"({world.size} ranks x {micro} x {config.batch_size // (micro * world.size)} passes)"
    )
    begins = f"carries on from step {progress.step}, clip" if progress.step else "starts at clip"
    for line in filter(None, text_summary):
        world.say(line)
    world.say(f"{config.run_dir} {begins} {progress.clips:,} of {total:,}")


def _attention(config: Config, device: str) -> str:
    if not config.encoder.pack:
        return "sdpa"
    return f"sdpa, over packed clips {packed_backend(config.encoder.attention, device)}"


def dry_run(config: Config) -> str:
    """Describe the resolved config, the parameters by part and the memory that ZeRO needs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    micro = micro_batch_size(config, size)
    objective = model_on_meta(config)
    lines = [dump(config), *_counts(objective), ""]
    lines.append(
        f"{config.batch_size} clips a step = {size} ranks x {micro} clips x "
        f"{config.batch_size // (micro * size)} passes; "
        f"{config.sequence_length} frames of {config.frame_text} pixels a clip"
    )
    lines += [
        "",
        *memory_table(sum(p.numel() for p in objective.parameters()), size, config.offload),
        "",
        *size_table(config),
    ]
    return "\n".join(lines)


def _counts(objective: nn.Module) -> Iterator[str]:
    parts: dict[str, nn.Module] = objective.model.parts()  # type: ignore[operator,union-attr]
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    yield "parameters by part"
    for name, count in counts.items():
        yield f"  {name:<20}{count:>15,}"
    yield f"  {'all':<20}{sum(p.numel() for p in objective.parameters()):>15,}"
