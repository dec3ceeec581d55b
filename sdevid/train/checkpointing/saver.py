"""Saving: every rank's part of a checkpoint, agreed on, written while training goes on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from sdevid import checkpoint, tensor_file
from sdevid.checkpoint import Manifest, ParameterShard, Progress
from sdevid.config import record
from sdevid.errors import UserError
from sdevid.train.checkpointing import probe, retention
from sdevid.train.checkpointing.checksum import checksum
from sdevid.train.checkpointing.data_identity import DataIdentity
from sdevid.train.checkpointing.host_memory import HostMemory
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.health import disk
from sdevid.train.world import World

Result = TypeVar("Result")
Files = dict[str, tuple[int, str]]  # size in bytes and sha256, by name
Sums = dict[str, int]


class SaveError(UserError):
    """A checkpoint could not be written; the earlier ones are unchanged.

    The cause may pass by itself: a disk that is full of others' files, or does not answer.
    """


@dataclass(frozen=True)
class Capture:
    """This rank's part of a checkpoint, as it was at one step."""

    folder: Path
    partial: Path
    state_dicts: dict[str, Any]  # DeepSpeed's, by file name
    shards: list[ParameterShard]
    moments: list[dict[str, Any]]
    average: list[Tensor]
    buffers: dict[str, Tensor]
    random_state: dict[str, Tensor]
    manifest: Manifest  # without files and sums


class Saver:
    """Saves a run's checkpoints, one after the other; a context manager that waits at its end.

    With `checkpoint.asynchronous`, `save` returns when this rank's state is copied to host memory;
    a thread writes, hashes and publishes it. The ranks' threads agree over a process group of
    their own. Every rank must call `save` and `wait` at the same steps.
    """

    def __init__(
        self,
        engine: Engine,
        ema: EMA,
        *,
        data: DataIdentity | None = None,
        total_clips: int = 0,
        whole: bool = False,
    ) -> None:
        """Take `data` and `total_clips` into manifests; `whole`: there is a whole checkpoint."""
        self.engine, self.ema = engine, ema
        self._data, self._total_clips = data, total_clips
        self._failures = 0 if whole else 1  # in a row; a first save that fails is as bad as two
        self.settings, self.run_dir = engine.config.checkpoint, engine.config.run_dir
        self.world = engine.world
        self._behind = _world_of_its_own(self.world, self.settings.patience)
        self._memory = HostMemory()
        self._thread: threading.Thread | None = None
        self._failure: SaveError | None = None
        self._stops = False  # whether that failure ends the run
        self.saved: list[int] = []  # steps of the checkpoints written since the start
        self.stall = 0.0  # seconds that training stood still for the last save

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:  # what was begun is finished, whatever ended training
            self._thread.join(self.settings.patience)

    def save(self, progress: Progress, figures: dict[str, float] | None = None) -> None:
        """Begin the checkpoint of this step, when the previous one is finished.

        `figures` are the latest metrics, for `checkpoint.best`. Raises SaveError on every rank
        where the previous write hangs, and, unless asynchronous, where this one failed and
        `checkpoint.on_failure` is stop. A failure in the thread asks all ranks to stop instead.
        """
        self.wait()
        began = time.perf_counter()
        score = self.score(figures or {})
        self._failure, self._stops = None, False
        folder = checkpoint.folder_of(self.run_dir, progress.step)
        partial = folder.with_name(f".partial-{folder.name}")
        try:
            _on_all(self.world, lambda: _start(partial) if self.world.main else None)
        except OSError as error:
            self._failed(progress.step, partial, error)
        else:
            capture = self._capture(progress, folder, partial, score)
            if self.settings.asynchronous:
                self._thread = threading.Thread(
                    target=self._write, args=(capture, self._behind), name="saver", daemon=True
                )
                self._thread.start()
            else:
                self._write(capture, self.world)
        self.stall = time.perf_counter() - began
        if not self.settings.asynchronous and self.settings.on_failure != "warn":
            self.wait(strict=self._stops)

    def wait(self, *, strict: bool = False) -> None:
        """Wait until the checkpoint under way is on the disk, or has failed.

        Raises SaveError on a hang; with `strict`, on every rank where the last save failed on any.
        """
        if self._thread is not None:
            self._thread.join(self.settings.patience)
            if self._thread.is_alive():
                raise SaveError(
                    f"a checkpoint has not been written to {self.run_dir} within "
                    f"{self.settings.patience} s (checkpoint.patience): the disk does not answer"
                )
            self._thread = None
        if strict and self._failure is not None:
            raise self._failure

    def score(self, figures: dict[str, float]) -> float | None:
        """Look up the figure that decides the best checkpoint; UserError where none is logged."""
        best = self.settings.best
        if best is not None and best not in figures:
            raise UserError(
                f"checkpoint.best is {best}, but no such figure is logged; take one of "
                f"{', '.join(sorted(figures))}"
            )
        return None if best is None else figures[best]

    def _capture(
        self, progress: Progress, folder: Path, partial: Path, score: float | None
    ) -> Capture:
        engine, memory = self.engine, self._memory
        keep = memory.copy if self.settings.asynchronous else lambda value: value
        memory.begin()
        capture = Capture(
            folder=folder,
            partial=partial,
            state_dicts=engine.state_dicts(partial, keep),
            shards=[
                ParameterShard(keep(shard.tensor), shard.slices)
                for shard in engine.parameter_shards()
            ],
            moments=keep(engine.moments()),
            average=keep(self.ema.average),
            buffers=keep({n: b.detach().contiguous() for n, b in engine.buffers().items()}),
            random_state=checkpoint.random_state(),
            manifest=Manifest(
                format=checkpoint.FORMAT,
                clips=progress.clips,
                step=progress.step,
                world_size=engine.world.size,
                zero_stage=engine.config.zero_stage,
                parameters={name: list(shape) for name, shape in engine.shapes.items()},
                files={},
                faults=progress.faults,
                groups=engine.groups(),
                probe=probe.score(engine),
                score=score,
                data=self._data.fields() if self._data else {},
                total_clips=self._total_clips,
                cursors=progress.cursors,
            ),
        )
        memory.finish()
        return capture

    def _write(self, capture: Capture, world: World) -> None:
        """Write, hash and publish; a failure is kept for `wait`."""
        try:
            _on_all(world, lambda: self._write_rank(capture))
            outcomes = _on_all(world, lambda: (_hashes(capture.partial, world), _sums(capture)))
            manifest = replace(
                capture.manifest,
                files={name: entry for files, _ in outcomes for name, entry in files.items()},
                sums=_added([sums for _, sums in outcomes]),
            )
            _on_all(world, lambda: self._publish(capture, manifest) if world.main else None)
            self._failures = 0
            self.saved.append(manifest.step)
        except Exception as error:  # in a thread nobody would see it
            self._failed(capture.manifest.step, capture.partial, error)

    def _write_rank(self, capture: Capture) -> None:
        partial, rank = capture.partial, self.world.rank
        for name, state in capture.state_dicts.items():
            self.engine.write(state, str(partial / name))
        if self.world.main:
            (partial / "config.yaml").write_text(record(self.engine.config), encoding="utf-8")
            tensor_file.save(capture.buffers, partial / "buffers.safetensors")
        checkpoint.write_rank(partial, rank, capture.shards, capture.average, capture.random_state)

    def _publish(self, capture: Capture, manifest: Manifest) -> None:
        checkpoint.publish(capture.partial, capture.folder, manifest)
        retention.prune(self.run_dir, self.settings)

    def _failed(self, step: int, partial: Path, error: Exception) -> None:
        if self.world.main:
            shutil.rmtree(partial, ignore_errors=True)
        failure = SaveError(_not_saved(self.run_dir, step, error))
        failure.__cause__ = error
        self._failure = failure
        self._failures += 1
        kind = self.settings.on_failure
        stops = kind == "stop" or (kind == "stop_repeated" and self._failures > 1)
        follows = "the run stops" if stops else "training goes on"
        self.world.say(f"warning: {failure}; {follows} (checkpoint.on_failure)", "warning")
        self._stops = stops
        if stops:
            self.world.ask_to_stop("stopped")


def _world_of_its_own(world: World, patience: int) -> World:
    """Open a process group for the same ranks, which the training thread never uses."""
    if world.size == 1:
        return world
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=patience))
    return World(world.rank, world.size, world.device, group)


def _hashes(partial: Path, world: World) -> Files:
    """Hash this rank's share of the files, with their sizes; they are on the disk after it."""
    mine = checkpoint.files_of(partial)[world.rank :: world.size]
    return {
        str(path.relative_to(partial)): (path.stat().st_size, checkpoint.digest(path, sync=True))
        for path in mine
    }


def _sums(capture: Capture) -> Sums:
    return sums_of(capture.shards, capture.moments)


def sums_of(shards: list[ParameterShard], moments: list[dict[str, Any]]) -> Sums:
    """Compute this rank's share of the checksums of weights and of Adam's moments."""
    sums = {"weights": checksum((shard.tensor, shard.slices) for shard in shards)}
    for name in ("exp_avg", "exp_avg_sq"):
        if all(name in moment for moment in moments):
            sums[name] = checksum((m[name], p.slices) for m, p in zip(moments, shards, strict=True))
    return sums


def _added(parts: list[Sums]) -> dict[str, str]:
    """Add the ranks' sums, in hexadecimal."""
    names = {name for part in parts for name in part}
    return {n: f"{sum(p.get(n, 0) for p in parts) % 2**64:016x}" for n in sorted(names)}


def total_sums(engine: Engine) -> dict[str, str]:
    """Compute the checksums of an engine's live weights and moments over all ranks."""
    return _added(engine.world.gather(sums_of(engine.parameter_shards(), engine.moments())))


def _start(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _on_all(world: World, work: Callable[[], Result]) -> list[Result]:
    """Run `work` on every rank and gather the results; OSError on all where it failed on any."""
    result, failure = None, None
    try:
        result = work()
    except Exception as error:  # whatever it is, the other ranks must not be left waiting
        failure = f"{type(error).__name__}: {error}"
    outcomes: list[tuple[Any, str | None]] = world.gather((result, failure))
    failures = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(outcomes) if text]
    if failures:
        raise OSError("; ".join(failures))
    return [outcome for outcome, _ in outcomes]


def _not_saved(run_dir: Path, step: int, error: Exception) -> str:
    kept = checkpoint.steps(run_dir)
    left = f"the checkpoint of step {kept[0]} is as it was" if kept else "there was none before it"
    return (
        f"the checkpoint of step {step} could not be written to {run_dir}: {error}. "
        f"{disk.free(run_dir)}; {left}. Make room and give the same command again"
    )
