"""The trainer with faults made in it on purpose, so that the product holds no scaffolding for them.

    python tests/drills/faulty.py '{"lose": {"serials": [7]}}' train --config C.yaml [key=value ...]

Each fault is a function here; its arguments are in the JSON. Ranks are those of torchrun.
"""

from __future__ import annotations

import ctypes
import functools
import io
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from sdevid import checkpoint
from sdevid.objectives.latent_sde import LatentSDEObjective

_save = torch.save
RANK = int(os.environ.get("RANK", "0"))


def lose(serials: Collection[int], what: str = "loss", by: float = math.nan) -> None:
    """Make what any clip with one of these serials adds to its batch not finite, or add `by`.

    `what` is loss (the gradient stays finite), or gradient (the loss does).
    """
    forward = LatentSDEObjective.forward

    def lossy(self: LatentSDEObjective, *, serial: Any, **inputs: Any) -> Any:
        terms = forward(self, serial=serial, **inputs)
        if not set(serial.tolist()) & set(serials):
            return terms
        loss = terms["loss"]
        nothing = loss - loss  # the slope of its root, at 0, is infinite
        return terms | {"loss": loss + (by if what == "loss" else nothing.sqrt())}

    LatentSDEObjective.forward = lossy  # type: ignore[method-assign]


def before(clip: int, act: Callable[[], object]) -> None:
    """Act when the rank that has the clip of this serial is about to pass it through the model."""
    forward = LatentSDEObjective.forward

    def acting(self: LatentSDEObjective, *, serial: Any, **inputs: Any) -> Any:
        if clip in serial.tolist():
            act()
        return forward(self, serial=serial, **inputs)

    LatentSDEObjective.forward = acting  # type: ignore[method-assign]


def hang(serial: int, how: str, seconds: float = 3600.0) -> None:
    """sleep; hold: sleep while no other thread may run; stop: the whole process, from outside."""
    acts: dict[str, Callable[[], object]] = {
        "sleep": lambda: time.sleep(seconds),
        "hold": lambda: ctypes.PyDLL(None).sleep(int(seconds)),
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    }
    before(serial, acts[how])


def exhaust(serial: int) -> None:
    """Ask the allocator for more memory than any machine has."""
    before(serial, lambda: torch.empty(2**50, dtype=torch.float32))


def die(serial: int) -> None:
    """As the kernel kills a process on a host whose memory is full."""
    before(serial, lambda: os.kill(os.getpid(), signal.SIGKILL))


def slow(rank: int, seconds: float) -> None:
    """Let one rank take longer for each pass."""
    forward = LatentSDEObjective.forward

    def late(self: LatentSDEObjective, **inputs: Any) -> Any:
        if rank == RANK:
            time.sleep(seconds)
        return forward(self, **inputs)

    LatentSDEObjective.forward = late  # type: ignore[method-assign]


def small_files(rank: int, most: int) -> None:
    """Let no file of a rank grow past `most` bytes, as if its disk were full."""
    if rank == RANK:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def kill_in_save(phase: str, step: int, rank: int, signals: Sequence[str] = ("SIGKILL",)) -> None:
    """Signal one rank in the save of `step`, where the interpreter reports a call on its files.

    Several signals follow each other as fast as a hand gives them.
    """
    if rank != RANK:
        return
    partial = f".partial-step_{step}"
    if phase == "torn":
        torch.save = functools.partial(_tear, partial)
    renamed, pending = list[str](), list(signals)

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        path, other = (str(arguments[0]), str(arguments[1])) if len(arguments) > 1 else ("", "")
        ours = partial in path
        if event == "os.rename":
            renamed.append(Path(other).name)
        reached = {
            "folder": ours and event == "os.mkdir",
            "torn": False,
            "weights": ours and event == "open" and "/layout-" in path and other == "w",
            "hashing": ours and event == "open" and other == "r",
            "manifest": ours and event == "open" and path.endswith("/.manifest.json.tmp"),
            "renaming": path.endswith(partial) and event == "os.rename",
            "latest": f"step_{step}" in renamed and path.endswith("/.latest.tmp"),
            "deleting": event == "os.remove" and any(".deleted-" in name for name in renamed),
        }
        while reached[phase] and pending:
            os.kill(os.getpid(), signal.Signals[pending.pop(0)])
            time.sleep(0.3)

    sys.addaudithook(kill)


def _tear(place: str, state: Any, file: Any, **how: Any) -> None:
    """In a file of that place, half of what torch.save writes, and then no more."""
    if place not in str(file):
        return _save(state, file, **how)
    whole = io.BytesIO()
    _save(state, whole, **how)
    Path(file).write_bytes(whole.getvalue()[: whole.tell() // 2])
    return os.kill(os.getpid(), signal.SIGKILL)


def misfile(rank: int) -> None:
    """Let one rank fail to write its weights, by an error that nobody foresaw."""

    def fail(*_: Any) -> None:
        raise TypeError("no such thing")

    if rank == RANK:
        checkpoint.write_rank = fail


FAULTS: dict[str, Callable[..., None]] = {
    fault.__name__: fault
    for fault in (lose, hang, exhaust, die, slow, small_files, misfile, kill_in_save)
}


def main(faults: str, *arguments: str) -> int:
    from sdevid.cli.main import main as sdevid

    for name, settings in json.loads(faults).items():
        FAULTS[name](**settings)
    return sdevid(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(*sys.argv[1:]))
