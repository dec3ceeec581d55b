"""The processes of a run: who they are, and how they agree to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from sdevid.errors import UserError
from sdevid.train.health.heartbeat import Heartbeat

LEAVING_SECONDS = 60.0  # for the process group to come apart
StopReason = Literal["stopped", "preempted"]
_REASONS: tuple[StopReason, ...] = ("stopped", "preempted")  # a higher place outranks a lower one


@dataclass(frozen=True)
class Asked:
    """What is to be done at a step boundary: the same on every rank."""

    stop: StopReason | None = None
    save: bool = False


@dataclass
class World:
    """This process among those of the run. `control` carries small messages between hosts."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    _stop: int = 0  # 0, or 1 + the place in _REASONS
    _save: bool = False
    _vote: torch.Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))
    _pending: dist.Work | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that prints, logs and names files."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, once for all ranks."""
        if self.main:
            print(text, flush=True)

    def ask_to_stop(self, reason: StopReason) -> None:
        """Let every rank end at its next step boundary or the one after."""
        self._stop = max(self._stop, 1 + _REASONS.index(reason))

    def ask_to_save(self) -> None:
        """Let every rank save at its next step boundary or the one after, and go on."""
        self._save = True

    def asked(self) -> Asked:
        """What to do at this step boundary: the same answer on every rank.

        With several ranks it is what was asked before the last call, so that the exchange runs
        beside a step and nobody waits for it. Every rank must call it once a step.
        """
        mine = torch.tensor([self._stop, self._save])
        self._save = False
        agreed = mine
        if self.size > 1:
            agreed = torch.zeros(2, dtype=torch.int64)
            if self._pending is not None:
                self._pending.wait()
                agreed = self._vote.clone()
            self._vote.copy_(mine)
            self._pending = dist.all_reduce(
                self._vote, op=dist.ReduceOp.MAX, group=self.control, async_op=True
            )
        stop, save = (int(x) for x in agreed)
        return Asked(_REASONS[stop - 1] if stop else None, bool(save))

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over ranks of a small tensor, on the CPU."""
        values = values.detach().to("cpu", torch.float64)
        if self.size > 1:
            dist.all_reduce(values, group=self.control)
        return values / self.size

    def mean_now(self, values: torch.Tensor) -> list[float]:
        """Mean over ranks of a few figures, over the links of the devices they lie on."""
        values = values.detach().double()
        if self.size > 1:
            dist.all_reduce(values)
        return cast(list[float], (values / self.size).tolist())


@contextmanager
def open_world() -> Iterator[World]:
    """The world that torchrun describes in the environment, or a world of one process.

    While it is open, SIGTERM and SIGUSR2 ask for a stop as preempted, and the first Ctrl-C as
    stopped. Raises UserError where the environment is half set.
    """
    rank, size, local_rank = _place()
    device = _device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(minutes=30)
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")  # collectives that the recorder keeps
    alone = size == 1 and "MASTER_ADDR" not in os.environ
    if alone:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=timeout)
    world = World(rank, size, device, dist.new_group(backend="gloo", timeout=timeout))
    try:
        with _signals(world):
            yield world
    finally:
        with _at_most(LEAVING_SECONDS):  # a rank may wait here for others that are stuck
            dist.destroy_process_group()
        if alone:
            del os.environ["LOCAL_RANK"]  # who looks for a launcher next must not see one


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process where what it is in takes longer; `exit.json` is written by then."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def node_name() -> str:
    """This machine, as Slurm calls it or else itself."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def _place() -> tuple[int, int, int]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = {name: os.environ[name] for name in names if name in os.environ}
    if "WORLD_SIZE" not in found:
        return 0, 1, 0
    if len(found) < len(names):
        missing = ", ".join(name for name in names if name not in found)
        raise UserError(
            f"WORLD_SIZE is {found['WORLD_SIZE']} in the environment, but {missing} is not set; "
            "start several processes with torchrun, or unset WORLD_SIZE"
        )
    return int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"])


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank} of this node has no GPU: {torch.cuda.device_count()} are "
            "visible; start at most that many processes a node (torchrun --nproc-per-node)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


@contextmanager
def _signals(world: World) -> Iterator[None]:
    def preempt(_signal: int, _frame: FrameType | None) -> None:
        world.ask_to_stop("preempted")

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        world.ask_to_stop("stopped")
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once

    handlers = {signal.SIGTERM: preempt, signal.SIGUSR2: preempt, signal.SIGINT: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
