"""One source video cut and encoded into one file, in a process of its own.

A part is `000012.bin`, the payloads of the clips one after the other, and `000012.json`, written
last, which says what they are. Parts bound the memory of a cut, whatever the length of a video,
and let an interrupted cut keep what is done.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sdevid.data import mask
from sdevid.data.payload import EXTENSION, encode
from sdevid.data.shard_file import write_json
from sdevid.data.spec import BadVideoError, ClipSource, CutClip, CutSpec, LeftOutError
from sdevid.errors import UserError

_CRASH = "the process that decoded it died (a crash in the decoder, or out of memory)"


Kind = Literal["bad", "left out"]  # damaged, or whole but of no use


class Fault(NamedTuple):
    """Why a source gives no clip."""

    reason: str
    kind: Kind


@dataclass(frozen=True)
class Job:
    """One source to be cut."""

    number: int  # in the order of the whole cut
    source: ClipSource
    spec: CutSpec
    folder: Path  # of the parts

    def path(self, ending: str) -> Path:
        """Name the file of this part that has the extension `ending`."""
        return self.folder / f"{self.number:06d}.{ending}"


@dataclass(frozen=True)
class PartClip:
    """One clip of a part, ready for a tar."""

    key: str
    meta: dict[str, Any]
    extension: str  # of the payload
    payload: bytes
    mask: bytes | None  # the KEY.mask of a clip that lacks something


def make_part(job: Job) -> Fault | None:
    """Cut one source unless its part is there; return the fault if it gives no clip."""
    if job.path("json").exists():
        return None
    table: list[dict[str, Any]] = []
    try:
        clips = _Noting(job.source.clips(job.spec))
        with job.path("bin").open("wb") as file:
            for clip in clips:
                payload = encode(job.spec.store, clip.video, job.spec.fps)
                key = f"{job.number:06d}-{_slug(job.source.name)}-{len(table):04d}"
                mask_bytes = b"" if clip.mask is None else mask.encode(clip.mask)
                sizes = {"size": len(payload), "mask": len(mask_bytes)}
                table.append({"key": key, "meta": _meta(job, clip), **sizes})
                file.write(payload + mask_bytes)
    except (BadVideoError, LeftOutError) as error:
        job.path("bin").unlink()
        return Fault(str(error), "bad" if isinstance(error, BadVideoError) else "left out")
    write_json(job.path("json"), {"clips": table, "notes": clips.notes})
    return None


class _Noting:
    """Iterates over the clips of a source and keeps the notes that it returns at the end."""

    def __init__(self, clips: Iterator[CutClip]) -> None:
        self._clips = clips
        self.notes: Counter[str] = Counter()

    def __iter__(self) -> Generator[CutClip, None, None]:
        while True:
            try:
                clip = next(self._clips)
            except StopIteration as end:
                self.notes = end.value or self.notes
                return
            except (BadVideoError, LeftOutError, UserError):
                raise
            except Exception as error:  # whatever a decoder makes of bytes of any origin
                if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
                    raise  # of this machine, not of the file
                raise BadVideoError(f"does not read ({type(error).__name__}: {error})") from error
            yield clip


def read_notes(job: Job) -> dict[str, int]:
    """Read how often each event worth a note occurs in the source of a finished part."""
    notes: dict[str, int] = _table(job)["notes"]
    return notes


def _table(job: Job) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(job.path("json").read_text(encoding="utf-8"))
    return table


def read_part(job: Job) -> Iterator[PartClip]:
    """Yield the clips of a finished part."""
    with job.path("bin").open("rb") as file:
        for row in _table(job)["clips"]:
            extension = EXTENSION[job.spec.store]
            payload, mask_bytes = file.read(row["size"]), file.read(row.get("mask", 0))
            yield PartClip(row["key"], row["meta"], extension, payload, mask_bytes or None)


def remove_part(job: Job) -> None:
    """Drop a part whose clips are in shards."""
    for ending in ("json", "bin"):
        job.path(ending).unlink(missing_ok=True)


def make_parts(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Fault | None]]:
    """Yield `make_part` of each job, in order, in `workers` processes (0: in this one).

    A source whose process dies twice, the second time alone, is given a reason like any bad one.
    """
    if workers == 0:
        for job in jobs:
            yield job, make_part(job)
        return
    waiting, running = deque(jobs), deque[tuple[Job, Future[Fault | None]]]()
    pool = _pool(workers)
    try:
        while waiting or running:
            try:
                while waiting and len(running) < 2 * workers:
                    running.append((waiting[0], pool.submit(make_part, waiting[0])))
                    waiting.popleft()
                outcome = running[0][1].result()
                job = running.popleft()[0]
            except BrokenProcessPool:
                waiting.extendleft(job for job, _ in reversed(running))
                running.clear()
                job = waiting.popleft()
                outcome = _make_alone(job)
                pool.shutdown()
                pool = _pool(workers)
            yield job, outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _make_alone(job: Job) -> Fault | None:
    with _pool(1) as pool:
        try:
            return pool.submit(make_part, job).result()
        except BrokenProcessPool:
            job.path("bin").unlink(missing_ok=True)
            return Fault(_CRASH, "bad")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _meta(job: Job, clip: CutClip) -> dict[str, Any]:
    frames, height, width, channels = clip.video.shape
    return {
        "source": clip.source,
        "start": clip.start,
        "fps": job.spec.fps,
        "num_frames": frames,
        "height": height,
        "width": width,
        "channels": channels,
        "label": job.source.label,
        "caption": job.source.caption,
        **clip.extra,
    }


def _slug(name: str) -> str:
    """Shorten `name` for a tar member's name: no dots, at most 60 characters."""
    stem = name.rpartition(".")[0] or name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[-60:].strip("-") or "clip"
