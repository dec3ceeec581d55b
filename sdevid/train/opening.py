"""What a run says first, and what `--dry-run` says instead of running: the arithmetic."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import torch
from torch import nn

from sdevid import objectives
from sdevid.checkpoint import Progress
from sdevid.config import Config, OffloadConfig, dump
from sdevid.data.stream import micro_batch_size
from sdevid.models import trajectory
from sdevid.models.attention import backend
from sdevid.train import compiled
from sdevid.train.engine import Engine
from sdevid.train.size_table import size_table

GIB = 2**30
NOTHING = OffloadConfig()  # offloaded


def announce(engine: Engine, progress: Progress, total: int, told: str) -> None:
    """The first lines of a run, on the main rank; `told` is of its text."""
    config, world = engine.config, engine.world
    parameters = sum(math.prod(shape) for shape in engine.shapes.values())
    micro = micro_batch_size(config, world.size)
    device = world.device.type
    if device == "cuda":
        device = f"{torch.cuda.get_device_name(world.device)} (cuda)"
    attention = backend(config.encoder.attention, world.device.type)
    world.say(
        f"{config.model_type}: {parameters:,} parameters, {config.precision}; device {device}, "
        f"attention {attention}; {trajectory.describe(config, world.device, micro)}"
        f"{compiled.describe(config)}"
    )
    world.say(
        f"world {world.size}, ZeRO {config.zero_stage}; {config.batch_size} clips a step "
        f"({world.size} ranks x {micro} x {config.batch_size // (micro * world.size)} passes)"
    )
    begins = f"carries on from step {progress.step}, clip" if progress.step else "starts at clip"
    world.say(told)
    world.say(f"{config.run_dir} {begins} {progress.clips:,} of {total:,}")


def dry_run(config: Config) -> str:
    """The resolved config, parameters by part and the memory that ZeRO needs, as text."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    micro = micro_batch_size(config, size)
    objective = model_on_meta(config)
    lines = [dump(config), *_counts(objective), ""]
    lines.append(
        f"{config.batch_size} clips a step = {size} ranks x {micro} clips x "
        f"{config.batch_size // (micro * size)} passes; "
        f"{config.sequence_length} frames of {config.frame_size}x{config.frame_size} a clip"
    )
    lines += [
        "",
        *memory_table(sum(p.numel() for p in objective.parameters()), size, config.offload),
        "",
        *size_table(config),
    ]
    return "\n".join(lines)


def model_on_meta(config: Config) -> nn.Module:
    """The objective without memory behind its parameters."""
    with torch.device("meta"):
        return objectives.build(config)


def _counts(objective: nn.Module) -> Iterator[str]:
    parts: dict[str, nn.Module] = objective.model.parts()  # type: ignore[operator,union-attr]
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    yield "parameters by part"
    for name, count in counts.items():
        yield f"  {name:<20}{count:>15,}"
    yield f"  {'all':<20}{sum(p.numel() for p in objective.parameters()):>15,}"


def memory_bytes(
    parameters: int, ranks: int, stage: int, offload: OffloadConfig = NOTHING
) -> float:
    """Bytes a rank holds on its device between two steps, and gradients at their peak.

    float32 throughout, 4 bytes each: weights, gradients, and split over the ranks the master
    weights (under stage 3 they are the weights), Adam's two moments and the EMA. An optimizer that
    is offloaded takes master weights, moments, EMA and the gradients' split with it. Activations,
    communication buffers, weights gathered for use and the framework are left out. After
    Rajbhandari et al. 2020, section 5.
    """
    whole, share = 4.0 * parameters, 4.0 * parameters / ranks
    if stage == 0:
        return whole * 5  # weights, gradients, two moments, EMA
    weights = whole if stage < 3 else share * (offload.parameters == "none")
    if offload.optimizer != "none":
        return weights + (whole if stage == 1 else 0)
    if stage == 1:
        return whole * 2 + share * 4
    if stage == 2:
        return whole + share * 5
    return share * 5


def host_bytes(parameters: int, ranks: int, stage: int, offload: OffloadConfig) -> float:
    """Bytes a rank holds in the host's memory, or on its NVMe disk, by what is offloaded."""
    share = 4.0 * parameters / ranks
    moved = 5 if stage and offload.optimizer != "none" else 0
    return share * (moved + (stage == 3 and offload.parameters != "none"))


def memory_table(parameters: int, size: int, offload: OffloadConfig) -> Iterator[str]:
    """Memory a rank under ZeRO 1, 2 and 3, for this world and a few others."""
    yield (
        "GiB a rank for weights, gradients, optimizer and EMA, all float32; not counted: "
        "activations, communication buffers, weights that ZeRO 3 gathers for use, the framework"
    )
    moved = offload.optimizer != "none" or offload.parameters != "none"
    if moved:
        yield (
            f"offloaded: optimizer to {offload.optimizer}, parameters to {offload.parameters} "
            "(ZeRO 3); on the device + beside it"
        )
    yield "  ranks" + "".join(f"{f'ZeRO {stage}':>{18 if moved else 11}}" for stage in (1, 2, 3))
    for ranks in sorted({size, 1, 8, 64}):
        row = f"  {ranks:<5}"
        for stage in (1, 2, 3):
            row += f"{memory_bytes(parameters, ranks, stage, offload) / GIB:>11.3f}"
            if moved:
                row += f" +{host_bytes(parameters, ranks, stage, offload) / GIB:>5.2f}"
        yield row
