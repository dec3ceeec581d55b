"""An optimizer's step and a window of sampled video on the pretended device, counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from pretended_cuda import CUDA, PretendedCuda, on_device, pinned, pretended_cuda
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.nn import functional

from sdevid import config as configs
from sdevid import objectives, types
from sdevid.train.engine import Engine
from sdevid.train.world import World
from sdevid.types import Batch

# The tree whose code is counted: this one, or another commit's (table.py).
ROOT = Path(os.environ.get("SDEVID_REHEARSED") or Path(__file__).resolve().parents[2])
CLIPS = 2
OBSERVED = 2  # frames before a sampled video


def path_of(name: str) -> Path:
    """Find a config by its name, which has a folder where that is not configs/."""
    return ROOT / (f"{name}.yaml" if "/" in name else f"configs/{name}.yaml")


class Asked(NamedTuple):
    """What one step asks of the device, in a run's second step, when constants lie there."""

    launches: int
    waits: dict[str, int]  # by what waits and where
    copies: dict[str, int]  # from pageable memory of the host, which block
    draws: int = 0  # launches that draw random numbers
    kernels: frozenset[str] = frozenset()  # operators of kernels/ that were launched


def train(name: str, *overrides: str) -> Asked:
    """An optimizer's step of two clips by the config `name`: our engine, with DeepSpeed in it.

    Without a graph: what Python launches. The average of weights follows; nothing is logged.
    """
    few = (f"batch_size={CLIPS}", f"micro_batch_size={CLIPS}", *overrides)
    config = configs.load(path_of(name), few)
    if hasattr(config, "train_graph"):  # an edition before it has none
        config = config.model_copy(update={"train_graph": "off"})
    with pretended_cuda() as device, _world() as world:
        engine = Engine(_built(config), config, world)
        average = _average(engine, config)
        batch = _batch(config)
        for step in (1, 2):
            device.clear()
            engine.step([batch], 1.0, config.learning_rate)
            average.update(step)
        return _asked(device)


def sample(name: str, *overrides: str) -> Asked:
    """A window of video after two observed frames, on its way to the host as pixels."""
    from sdevid.models.sampling import Conditioning, SamplerConfig
    from sdevid.sample.sampler import as_pixels, as_values

    config = configs.load(path_of(name), overrides)
    with pretended_cuda() as device:
        model = _built(config).model
        ticks = config.frame_ticks(config.sequence_length).expand(CLIPS, -1)
        frames = torch.zeros(CLIPS, OBSERVED, *config.picture, device="cuda")
        seen = Conditioning(frames, ticks[:, :OBSERVED])
        convert = as_pixels if config.source.transform == "none" else as_values
        for _ in range(2):
            device.clear()
            for chunk in model.chunks(ticks[:, OBSERVED:], SamplerConfig(), seen):
                convert(chunk.frames)
        return _asked(device)


def _built(config: Any) -> nn.Module:
    with torch.device("meta"):
        objective = objectives.build(config)
    return on_device(objective)


def _average(engine: Engine, config: Any) -> Any:
    from sdevid.train.ema import EMA

    shards = engine.parameter_shards() if hasattr(engine, "parameter_shards") else engine.pieces()
    return EMA([shard.tensor for shard in shards], config.ema_decay)


def _batch(config: Any) -> Batch:
    """Clips as the reader gives them, in pinned memory."""
    side, frames = config.frame_size, config.sequence_length
    shape = (CLIPS, frames, side, side, config.channels)
    rate = () if hasattr(config, "time_unit") else (config.fps,)  # ticks were parts of a second
    ticks = types.frame_ticks(frames, *rate).expand(CLIPS, -1).contiguous()
    return Batch(
        video=pinned(torch.zeros(shape, dtype=torch.uint8)),
        ticks=pinned(ticks),
        serial=pinned(torch.arange(CLIPS)),
        keys=("a", "b"),
        captions=("", ""),
    )


def _asked(device: PretendedCuda) -> Asked:
    draws = sum(n for name, n in device.launches.items() if name.startswith("sdevid::philox"))
    launches = sum(device.launches.values())
    kernels = frozenset(name for name in device.launches if name.startswith("sdevid::"))
    return Asked(launches, dict(device.waits), dict(device.copies), draws, kernels)


@contextmanager
def _world() -> Iterator[World]:
    """A run's only process, its device the pretended one; DeepSpeed is told so."""
    names = {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, names))
        import deepspeed.ops
        from deepspeed.accelerator import get_accelerator

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled
        from deepspeed.runtime.zero import partitioned_param_coordinator as coordinator

        kind = type(get_accelerator())
        for patch in (
            mock.patch.object(kind, "device_name", return_value="cuda"),
            mock.patch.object(kind, "current_device_name", return_value=str(CUDA)),
            # Ranks compare what they recorded in their first steps, of which nothing is here.
            mock.patch.object(coordinator, "assert_ints_same_as_other_ranks"),
            mock.patch.object(functional, "linear", functional.linear),  # ZeRO 3 leaves its own
            mock.patch.object(nn.Module, "to", lambda self, *_args, **_kwargs: self),  # it is there
        ):
            stack.enter_context(patch)
        if not dist.is_initialized():  # stays: DeepSpeed keeps hold of the first that it sees
            dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        yield World(0, 1, CUDA, dist.new_group(backend="gloo"))
