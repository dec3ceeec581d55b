"""What is looked at on every node before training: a bad node is named before it burns hours.

Runs in the trainer's own processes, so that what is tested is what will train: the same Python, the
same GPUs, the same network.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch

from sdevid import checkpoint
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.train.checkpointing.data_identity import index_digest
from sdevid.train.health import disk, gpus, network, versions
from sdevid.train.summary.memory_budget import GIB, memory_bytes
from sdevid.train.summary.size_table import model_on_meta
from sdevid.train.training_data import TrainingData, open_data
from sdevid.train.world import World, node_name

_MOST_SKEW = 5.0  # seconds; logs and file times of several nodes should be comparable
_HEAD_START = 5.0  # seconds
_LEAST_NODE_DISK = GIB // 4  # bytes, for compilers' caches
_LEAST_SHARE_FREE = 0.9  # of a GPU's memory, beside the median of the others
_PROBE_BYTES = 2**16
_CHECKPOINT_BYTES = 24  # a parameter: DeepSpeed's weights, master, two moments; ours and the EMA


class BadNodeError(UserError):
    """A node that is not fit to train; the message names it."""


@dataclass(frozen=True)
class Report:
    """Findings of one rank."""

    node: str
    rank: int
    clock: float = 0.0  # seconds since 1970, read by all ranks at once
    gpu_free: float | None = None  # GiB
    facts: dict[str, str] = field(default_factory=dict)  # to be the same on all nodes
    faults: list[str] = field(default_factory=list)  # with this node alone


def check_nodes(config: Config, world: World) -> TrainingData:
    """Check that every node is fit to train, and return the opened data. Every rank takes part.

    Raises BadNodeError, on every rank alike, where one is not.
    """
    began = time.monotonic()
    nodes = world.gather(node_name())
    index, unread = _open(config, world)
    _meet(world, nodes, f"has not opened data {config.data}")
    errors = world.gather(unread)
    if index is None and all(error == errors[0] for error in errors):
        raise UserError(errors[0])
    report = _report(config, world, nodes[world.rank], index, unread)
    _meet(world, nodes, f"has not looked at run_dir {config.run_dir}, its own disk and its GPU")
    reports = world.gather(replace(report, clock=time.time()))
    faults = [*judge(reports), *_not_shared(config, world, reports)] or _deaf(world, reports)
    if index is None or faults:
        if not world.main:  # srun ends all nodes once one has ended: the main rank speaks first
            time.sleep(_HEAD_START)
            raise BadNodeError("preflight: see rank 0")
        raise BadNodeError(_message(faults, nodes))
    world.say(_summary(config, world, reports, network.bandwidth(world), began))
    return index


def _meet(world: World, nodes: Sequence[str], what: str) -> None:
    """Raise BadNodeError where a rank does not arrive in time.

    Its node is named: a file system or a driver does not answer there.
    """
    absent = network.absent(world)
    if not absent:
        return
    if not world.main:
        time.sleep(_HEAD_START)
        raise BadNodeError(f"preflight: see rank 0; where it is silent, look at node {nodes[0]}")
    within = f"{what} within {network.MEETING_SECONDS} s"
    raise BadNodeError(_message([f"node {nodes[r]}: rank {r} {within}" for r in absent], nodes))


def judge(reports: Sequence[Report]) -> list[str]:
    """List what is wrong with which node, from what all ranks found."""
    return [
        *(f"node {r.node}: {fault}" for r in reports for fault in r.faults),
        *_differences([r for r in reports if r.facts]),
        *_clocks(reports),
        *_memory(reports),
    ]


def _differences(nodes: Sequence[Report]) -> Iterator[str]:
    """Yield facts in which a node differs from most, or on a tie from the first."""
    for name in nodes[0].facts if nodes else ():
        by_node = {r.node: r.facts[name] for r in nodes if name in r.facts}
        usual = Counter(by_node.values()).most_common(1)[0][0]
        like = next(node for node, fact in by_node.items() if fact == usual)
        for node, fact in by_node.items():
            if fact != usual:
                yield f"node {node}: {name} {fact}, but {usual} on node {like}"


def _clocks(reports: Sequence[Report]) -> Iterator[str]:
    usual = median(r.clock for r in reports)
    for node in dict.fromkeys(r.node for r in reports):
        skew = next(r.clock for r in reports if r.node == node) - usual
        if abs(skew) > _MOST_SKEW:
            yield (
                f"node {node}: its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}; "
                f"{_MOST_SKEW:.0f} s are allowed"
            )


def _memory(reports: Sequence[Report]) -> Iterator[str]:
    free = [r.gpu_free for r in reports if r.gpu_free is not None]
    usual = median(free) if free else 0.0
    for r in reports:
        if r.gpu_free is not None and r.gpu_free < _LEAST_SHARE_FREE * usual:
            yield (
                f"node {r.node}: the GPU of rank {r.rank} has {r.gpu_free:.1f} GiB free where "
                f"others have {usual:.1f}; something else runs on it"
            )


def _deaf(world: World, reports: Sequence[Report]) -> list[str]:
    return [
        f"node {reports[rank].node}: rank {rank} heard nothing from rank {(rank - 1) % world.size} "
        f"on node {reports[rank - 1].node} within {network.SECONDS} s"
        for rank, heard in enumerate(network.ring(world))
        if not heard
    ]


def _message(faults: Sequence[str], nodes: Sequence[str]) -> str:
    bad = dict.fromkeys(fault.split(":")[0].removeprefix("node ") for fault in faults)
    several = len(set(nodes)) > 1
    without = f", or leave it out: sbatch --exclude={','.join(bad)}" if several else ""
    listed = "\n  ".join(faults)
    return (
        f"preflight found what is not fit to train:\n  {listed}\nPut it right{without}; "
        "preflight=false trains all the same"
    )


def _open(config: Config, world: World) -> tuple[TrainingData | None, str | None]:
    try:
        return open_data(config, world.size), None
    except UserError as error:
        return None, str(error)
    except OSError as error:
        return None, f"data {config.data} cannot be read: {error}"


def _report(
    config: Config, world: World, node: str, index: TrainingData | None, unread: str | None
) -> Report:
    faults = [] if unread is None else [unread]
    facts: dict[str, str] = {}
    parameters = sum(p.numel() for p in model_on_meta(config).parameters())
    if os.environ["LOCAL_RANK"] == "0":  # once a node
        facts = versions.installed() | ({"data index": index_digest(index)} if index else {})
        faults += [*_gpu_count(), *gpus.ecc_faults(), *_node_disk()]
        try:
            faults += _run_disk(config, parameters)
            _mark(config, world).touch()
        except OSError as error:
            faults.append(f"run_dir {config.run_dir} cannot be written: {error}")
    free = None
    if world.device.type == "cuda":
        free = torch.cuda.mem_get_info(world.device)[0] / GIB
        needed = memory_bytes(parameters, world.size, config.zero_stage, config.offload) / GIB
        if free < needed:
            faults.append(
                f"the GPU of rank {world.rank} has {free:.1f} GiB free, but weights, gradients and "
                f"optimizer alone take {needed:.1f}"
            )
    return Report(node, world.rank, gpu_free=free, facts=facts, faults=faults)


def _mark(config: Config, world: World) -> Path:
    """Name the file that tells a node's run_dir from another's."""
    return config.run_dir / f".preflight-{world.rank}"


def _gpu_count() -> Iterator[str]:
    asked = int(os.environ.get("SLURM_GPUS_ON_NODE", 0))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < asked:
        yield f"{count} GPUs answer, but {asked} were asked for"


def _run_disk(config: Config, parameters: int) -> Iterator[str]:
    folder = config.run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _probe_write(folder)
    except OSError as error:
        yield f"{folder} cannot be written: {error} ({disk.free(folder)})"
        return
    one = _CHECKPOINT_BYTES * parameters
    more = max(1, config.checkpoint.keep + 1 - len(checkpoint.steps(config.run_dir)))
    free = shutil.disk_usage(config.run_dir).free
    if free < more * one:
        yield (
            f"run_dir {config.run_dir} has {free / GIB:.2f} GiB free, but {more} more checkpoints "
            f"of about {one / GIB:.2f} GiB are to come"
        )


def _probe_write(folder: Path) -> None:
    """Write, sync and remove a file where checkpoints will lie. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
    try:
        os.write(handle, bytes(_PROBE_BYTES))
        os.fsync(handle)
    finally:
        os.close(handle)
        Path(name).unlink()


def _node_disk() -> Iterator[str]:
    caches = os.environ.get("TRITON_CACHE_DIR", tempfile.gettempdir())
    free = shutil.disk_usage(caches).free
    if free < _LEAST_NODE_DISK:
        yield (
            f"its own disk has {free / 2**20:.0f} MiB free at {caches}, but caches may take "
            f"{_LEAST_NODE_DISK / 2**20:.0f}; clean it, or set SDEVID_NODE_DISK"
        )


def _not_shared(config: Config, world: World, reports: Sequence[Report]) -> list[str]:
    """List nodes whose run_dir is not the main rank's; remove the files written to find out."""
    seen = {path.name for path in config.run_dir.glob(".preflight-*")} if world.main else set()
    seen = world.gather(seen)[0]
    _mark(config, world).unlink(missing_ok=True)
    return [
        f"node {r.node}: its run_dir {config.run_dir} is not that of node {reports[0].node}; it "
        "must be on a shared file system"
        for r in reports
        if r.facts and not r.faults and f".preflight-{r.rank}" not in seen
    ]


def _summary(
    config: Config, world: World, reports: Sequence[Report], bandwidth: float, began: float
) -> str:
    nodes = len({r.node for r in reports})
    parts = [f"{nodes} node{'s' * (nodes > 1)}, {world.size} rank{'s' * (world.size > 1)}"]
    free = shutil.disk_usage(config.run_dir).free / GIB
    parts.append(f"{free:.1f} GiB free for checkpoints")
    if world.size > 1:
        clocks = [r.clock for r in reports]
        parts.append(f"clocks within {max(clocks) - min(clocks):.2f} s")
    if not math.isnan(bandwidth):
        parts.append(f"all-reduce {bandwidth / 1e9:.2f} GB/s")
    return f"preflight: {', '.join(parts)}; all fit ({time.monotonic() - began:.1f} s)"
