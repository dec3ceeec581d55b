"""The processes of a run: who they are, and how they agree to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from sdevid import console
from sdevid.console import Level
from sdevid.errors import UserError
from sdevid.train.health.heartbeat import Heartbeat

LEAVING_SECONDS = 60.0  # for the process group to come apart
StopReason = Literal["stopped", "preempted"]
_REASONS: tuple[StopReason, ...] = ("stopped", "preempted")  # a higher place outranks a lower one


@dataclass(frozen=True)
class Asked:
    """Request to act on at a step boundary: the same on every rank."""

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
    interrupted: bool = False  # by a first Ctrl-C
    _stop: int = 0  # 0, or 1 + the place in _REASONS
    _save: bool = False
    _vote: torch.Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))
    _pending: dist.Work | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that prints, logs and names files."""
        return self.rank == 0

    def say(self, text: str, level: Level = "info") -> None:
        """Print a line, once for all ranks."""
        if self.main:
            console.say(text, level)

    def ask_to_stop(self, reason: StopReason) -> None:
        """Make every rank end at its next step boundary or the one after."""
        self._stop = max(self._stop, 1 + _REASONS.index(reason))

    def ask_to_save(self) -> None:
        """Make every rank save at its next step boundary or the one after, and go on."""
        self._save = True

    def asked(self) -> Asked:
        """Exchange what to do at this step boundary: the same answer on every rank.

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
        """Gather `value` of every rank, by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average a small tensor over ranks, on the CPU."""
        values = values.detach().to("cpu", torch.float64)
        if self.size > 1:
            dist.all_reduce(values, group=self.control)
        return values / self.size

    def mean_now(self, values: torch.Tensor) -> list[float]:
        """Average a few figures over ranks, over the links of the devices they lie on."""
        values = values.detach().double()
        if self.size > 1:
            dist.all_reduce(values)
        return cast(list[float], (values / self.size).tolist())


class RendezvousError(UserError):
    """The processes of a run did not find each other; another start may succeed."""


@contextmanager
def open_world() -> Iterator[World]:
    """Open the world that torchrun describes in the environment, or a world of one process.

    While it is open, SIGTERM, SIGUSR2 and SIGHUP ask for a stop as preempted, and the first Ctrl-C
    as stopped. A process group that is already open is used and left open. Raises UserError if the
    environment is half set, RendezvousError if the processes do not meet.
    """
    owned = not dist.is_initialized()
    rank, size, local_rank = _place() if owned else (dist.get_rank(), dist.get_world_size(), 0)
    device = _device(local_rank)
    timeout = timedelta(minutes=30)
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")  # collectives that the recorder keeps
    if owned:
        _meet(rank, size, device, timeout)
    world = World(rank, size, device, dist.new_group(backend="gloo", timeout=timeout))
    if owned and size == 1:
        for name in _leftovers():
            world.say(
                f"{name} is set without WORLD_SIZE and is ignored: one process trains alone",
                "warning",
            )
    try:
        with _signals(world):
            yield world
    finally:
        if owned:
            with _at_most(LEAVING_SECONDS):  # a rank may wait here for others that are stuck
                dist.destroy_process_group()
        if owned and size == 1:  # who looks for a launcher next must not see one
            os.environ.pop("LOCAL_RANK", None)


def _meet(rank: int, size: int, device: torch.device, timeout: timedelta) -> None:
    """Begin the default process group. Raises RendezvousError if the processes do not meet."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if size == 1:  # nobody to meet: no address, no port
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return
    try:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        where = ":".join(os.environ.get(f"MASTER_{name}", "unset") for name in ("ADDR", "PORT"))
        raise RendezvousError(
            f"rank {rank} did not meet the other processes at {where}: "
            f"{str(error).splitlines()[0]}; if another program holds the port, start again with "
            "another MASTER_PORT (torchrun: --rdzv-endpoint)"
        ) from error


def _leftovers() -> list[str]:
    """List variables of a launcher that is gone."""
    if "WORLD_SIZE" in os.environ:
        return []
    return [name for name in ("MASTER_ADDR", "MASTER_PORT", "RANK") if name in os.environ]


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process where the block takes longer; `exit.json` is written by then."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def node_name() -> str:
    """Name this machine as Slurm does, or else by its host name."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def _place() -> tuple[int, int, int]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    variables = {name: os.environ[name] for name in names if name in os.environ}
    if "WORLD_SIZE" not in variables:
        return 0, 1, 0
    if len(variables) < len(names):
        missing = ", ".join(name for name in names if name not in variables)
        raise UserError(
            f"WORLD_SIZE is {variables['WORLD_SIZE']} in the environment, but {missing} is not "
            "set; start several processes with torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, size, local_rank = (int(variables[name]) for name in names)
    except ValueError as error:
        raise UserError(
            f"{', '.join(f'{n} is {v}' for n, v in variables.items())} in the environment, but "
            "each must be a number; start with torchrun, or unset them"
        ) from error
    if not (0 <= rank < size and local_rank >= 0):
        raise UserError(
            f"RANK is {rank} and WORLD_SIZE {size} in the environment, but ranks count from 0 to "
            "WORLD_SIZE - 1; start with torchrun, or unset them"
        )
    return rank, size, local_rank


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
        if world.interrupted:  # the second Ctrl-C ends at once
            raise KeyboardInterrupt
        world.interrupted = True
        world.ask_to_stop("stopped")

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: preempt,
        signal.SIGUSR2: preempt,
        signal.SIGHUP: preempt,
        signal.SIGINT: interrupt,
    }
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
