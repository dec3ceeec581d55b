"""Ends a run that no longer moves, having written down where every rank stands."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType

import torch

from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.exit_code import ExitCode
from sdevid.train.health import last_resort
from sdevid.train.health.heartbeat import Beat
from sdevid.train.record import exit_file
from sdevid.train.world import World

STALLED = ExitCode.FAILED
_OFTEN = 20  # looks within a limit, at most one a second
_LATE = 1.0  # seconds by which a busy machine may run this thread late


class Watchdog:
    """A thread that watches the heartbeat of this rank while the context is open.

    Where it stays away longer than `watchdog.seconds` (or the limit of the phase that is under
    way), or another rank has called a stall, this rank writes `stall/rank-R.txt` (Python stacks of
    all threads) and `stall/flight-recorder-R.json` (the last collectives, as far as the backend
    records them), waits until the other ranks have written theirs or `watchdog.grace_seconds` have
    passed, writes `exit.json`, and ends the process with exit code 1. torchrun then ends the
    others, and Slurm's script puts the job back into the queue.

    Time in which the process was suspended (SIGSTOP, Ctrl-Z, `scontrol suspend`) does not count:
    the thread notices that it was itself not run.

    A call that hangs without letting other threads run stops this thread as well: then a helper
    process, which no longer hears from it, has the interpreter write the stacks to stderr and kills
    the process. The helper too counts only time in which it and this process were not stopped.
    """

    def __init__(self, config: Config, world: World, progress: Progress) -> None:
        self._settings, self._world, self._progress = config.watchdog, world, progress
        self._run_dir, self._folder = config.run_dir, config.run_dir / "stall"
        self._limits = {
            "start": self._settings.start_seconds,
            "step": self._settings.seconds,
            "checkpoint": self._settings.checkpoint_seconds,
        }
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._called_before = _changed(self._folder)

    def __enter__(self) -> Watchdog:
        if self._settings.seconds:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        pause = min(1.0, self._settings.seconds / _OFTEN)
        suspended, last = 0.0, self._world.heartbeat.last
        with last_resort.helper() as helper:
            while True:
                before = time.monotonic()
                if self._closed.wait(pause):
                    return
                beat, now = self._world.heartbeat.last, time.monotonic()
                if beat != last:
                    suspended, last = 0.0, beat
                suspended += max(0.0, now - before - pause - _LATE)
                limit, spent = self._limits[beat.phase], now - beat.at - suspended
                if spent > limit:
                    why = f"rank {self._world.rank} has not got past it for {spent:.0f} s"
                    self._end(beat, why)
                elif _changed(self._folder) != self._called_before:
                    self._end(beat, "another rank has called a stall")
                else:
                    helper.allow(limit - spent + 2 * self._settings.grace_seconds)

    def _end(self, beat: Beat, why: str) -> None:
        """Write down what there is to know and end the process, whatever else still hangs."""
        grace = self._settings.grace_seconds
        timer = threading.Timer(2 * grace, os._exit, (STALLED,))
        timer.daemon = True  # for a file system that hangs too
        timer.start()
        where = f"step {beat.step + 1}" if beat.phase == "step" else f"{beat.phase}"
        try:
            self._dump(f"stall in {where}: {why}")
            self._wait_for_others(grace)
            message = f"stall in {where}: {self._waiting()}; stacks are in {self._folder}"
            exit_file.write_first(
                self._run_dir, "failed", self._progress, message, self._world.rank
            )
            print(f"sdevid: rank {self._world.rank}: {message}", file=sys.stderr, flush=True)
        except OSError as error:
            print(f"sdevid: stall in {where}: {why}; {error}", file=sys.stderr, flush=True)
            faulthandler.dump_traceback(last_resort.stderr() or sys.stderr)
        finally:
            os._exit(STALLED)

    def _dump(self, headline: str) -> None:
        rank = self._world.rank
        self._folder.mkdir(parents=True, exist_ok=True)
        recorded = flight_recorder()
        if recorded:
            (self._folder / f"flight-recorder-{rank}.json").write_bytes(recorded)
        aside = self._folder / f".rank-{rank}.txt"
        with aside.open("w") as file:
            file.write(f"{_stand()}\n{headline}\n\n")
            file.flush()
            faulthandler.dump_traceback(file)
        aside.replace(self._path(rank))

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.txt"

    def _wait_for_others(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._missing():
            time.sleep(0.05)

    def _fresh(self, rank: int) -> bool:
        changed = _changed(self._path(rank))
        return changed is not None and changed > (self._called_before or 0)

    def _missing(self) -> list[int]:
        return [rank for rank in range(self._world.size) if not self._fresh(rank)]

    def _waiting(self) -> str:
        """Say which ranks wait for the others, and which stand elsewhere and may be the cause."""
        stands = {}
        for rank in range(self._world.size):
            if self._fresh(rank):
                stands[rank] = self._path(rank).read_text(encoding="utf-8").partition("\n")[0]
        states = [f"rank {rank} is in {stand}" for rank, stand in stands.items() if stand != WAITS]
        states += [f"rank {rank} does not answer" for rank in self._missing()]
        return ", ".join(states[:8]) or "all ranks wait for each other"


WAITS = "a collective"


def _stand() -> str:
    """Say where the main thread is: in a collective, which waits for others, or in some line."""
    frames = sys._current_frames()
    if any(_communicates(frame) for frame in frames.values()):
        return WAITS
    main = threading.main_thread().ident
    frame = frames.get(main) if main is not None else None
    if frame is None:
        return "no Python code"
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _communicates(frame: FrameType | None) -> bool:
    if frame is not None and _module(frame).startswith(("sdevid.train.world", "deepspeed.")):
        return True  # waits for a collective that runs beside it
    while frame is not None:
        if _module(frame) == "torch.distributed.distributed_c10d":
            return True
        frame = frame.f_back
    return False


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def flight_recorder() -> bytes | None:
    """Dump torch's record of the last collectives of this process as JSON, where there is one.

    Both gloo and NCCL fill it (TORCH_FR_BUFFER_SIZE entries). gloo's entries have shapes, order and
    process group, but no time of start or end and no stack.
    """
    bindings = torch._C._distributed_c10d
    for name in ("_dump_nccl_trace_json", "_dump_fr_trace_json"):
        dump = getattr(bindings, name, None)
        recorded = dump() if dump else b""
        if b'"entries":[{' in recorded:
            return bytes(recorded)
    return None


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
