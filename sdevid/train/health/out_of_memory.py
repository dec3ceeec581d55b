"""What took the memory, when a rank has run out of it."""

from __future__ import annotations

import gc
import math
import resource
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sdevid.config import Config
from sdevid.data.stream import micro_batch_size
from sdevid.train.summary.memory_budget import GIB, memory_bytes
from sdevid.train.world import World

_CGROUP = Path("/sys/fs/cgroup")
_TOP = 12  # largest tensors listed


def report(error: BaseException, config: Config, world: World) -> str:
    """Write `oom/rank-R.txt` in the run's folder; return the few lines that a user needs first.

    The kernel may end a process of a full host or cgroup without asking: then there is no report.
    """
    path = config.run_dir / "oom" / f"rank-{world.rank}.txt"
    where = "GPU" if world.device.type == "cuda" and _is_cuda(error) else "host"
    recovery = "; ".join(_remedies(config, world, where))
    summary = (
        f"rank {world.rank} ran out of {where} memory: {str(error).splitlines()[0]}. "
        f"What took it: {path}. Try {recovery}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([summary, "", *_details(config, world)]) + "\n", encoding="utf-8")
    except OSError as failure:
        return f"{summary} (the report could not be written: {failure})"
    return summary


def _is_cuda(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error)


def _remedies(config: Config, world: World, where: str) -> Iterator[str]:
    micro = micro_batch_size(config, world.size)
    if micro > 1:
        yield f"micro_batch_size={_half(micro)} (now {micro}; the same training in more passes)"
    if where == "GPU" and config.precision == "fp32":
        yield "precision=bf16"
    if config.zero_stage < 3 and world.size > 1:
        yield f"zero_stage={config.zero_stage + 1} (now {config.zero_stage})"
    if where == "host" and config.data_workers:
        yield f"data_workers={config.data_workers // 2} (now {config.data_workers})"
    yield "a smaller batch_size, sequence_length, frame_size or model"


def _half(micro: int) -> int:
    """Find the largest proper divisor: passes must share the clips evenly."""
    return next(n for n in range(micro // 2, 0, -1) if micro % n == 0)


def _details(config: Config, world: World) -> Iterator[str]:
    micro = micro_batch_size(config, world.size)
    height, width = config.frame_shape
    yield (
        f"batch_size {config.batch_size}: {world.size} ranks, {micro} clips a rank and pass, of "
        f"{config.sequence_length} frames of {width}x{height} pixels; "
        f"{config.precision}, ZeRO {config.zero_stage}"
    )
    tensors = _tensors()
    shapes = [getattr(t, "ds_shape", t.shape) for t in tensors if isinstance(t, torch.nn.Parameter)]
    states = memory_bytes(sum(map(math.prod, shapes)), world.size, config.zero_stage)
    yield f"weights, gradients, optimizer, EMA: {states / GIB:.3f} GiB (by count); the rest:"
    yield "activations, communication buffers, data, the framework"
    yield from _host()
    held = sum(map(_bytes, tensors)) / GIB
    yield f"\n{len(tensors)} tensors are alive and hold {held:.3f} GiB; the largest:"
    for tensor in sorted(tensors, key=_bytes, reverse=True)[:_TOP]:
        kind = "parameter" if isinstance(tensor, torch.nn.Parameter) else "tensor"
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        yield f"{_bytes(tensor) / GIB:10.4f} GiB  {kind} {shape} {tensor.dtype} {tensor.device}"
    if world.device.type == "cuda":
        yield "\n" + torch.cuda.memory_summary(world.device)


def _host() -> Iterator[str]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield f"this process held {peak / GIB:.3f} GiB of the host's memory at its peak"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield f"its address space is limited to {limit / GIB:.3f} GiB (ulimit -v)"
    for name, what in (("memory.max", "the limit"), ("memory.current", "now in use")):
        try:
            value = (_CGROUP / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if value.isdigit():
            yield f"{int(value) / GIB:.3f} GiB are {what} of the job's cgroup"


def _tensors() -> list[Tensor]:
    """List every tensor that the garbage collector knows, storage counted once."""
    seen: dict[int, Tensor] = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.device.type != "meta":
            seen.setdefault(thing.untyped_storage().data_ptr(), thing)
    return list(seen.values())


def _bytes(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())
