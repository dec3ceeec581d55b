"""Arrays with times as sources of clips: which there are, their windows, splits and times."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdevid.data.arrays import keep
from sdevid.data.arrays.fit import fitted
from sdevid.data.arrays.stack import Stack, open_stack
from sdevid.data.spec import BadVideoError, CutClip, CutSpec, LeftOutError

TICKS_PER_SECOND = 1_000_000  # of the times in KEY.json
_UNEVEN = 0.01  # of the interval: what departs by more is kept as a time of its own
_GAP = 10.0  # intervals; a longer one ends a stretch, and no clip crosses it


class Tile(NamedTuple):
    """A window of a larger field."""

    top: int
    left: int
    side: int


@dataclass(frozen=True)
class ArraySource:
    """One stack of frames, or a window or a stretch of time of one."""

    path: Path
    name: str
    group: str
    variable: str = ""  # within the file
    split: str | None = None
    label: str = ""
    captions: tuple[str, ...] = ()
    file: str = ""
    rows: int = 0
    tile: Tile | None = None
    frames: tuple[int, int] | None = None  # from, to; None: all
    keep_if: str | None = None
    clip_span: float | None = None  # seconds
    missing: float | None = None  # the value that stands for what was not observed
    seconds: tuple[float, ...] | None = None  # of each frame, where a list told

    @property
    def caption(self) -> str:
        """The first caption, or an empty text."""
        return self.captions[0] if self.captions else ""

    @property
    def size(self) -> int:
        """Size of its file or files in bytes."""
        return sum(path.stat().st_size for path in self._files())

    def digest(self) -> bytes:
        """Hash its file or files with SHA-256."""
        digest = hashlib.sha256()
        for path in self._files():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.digest()

    def _files(self) -> list[Path]:
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return [path for path in files if path.is_file()]

    def identity(self) -> list[Any]:
        """List what must not change for an interrupted cut to be resumed."""
        sizes = [(path.name, path.stat().st_size) for path in self._files()]
        window: list[Any] = [self.tile, self.frames, self.keep_if, self.clip_span, self.seconds]
        window += [] if self.missing is None else [self.missing]
        window += [list(self.captions)] if self.captions else []
        return [self.name, self.group, self.variable, self.split, self.label, *window, sizes]

    def open(self) -> Stack:
        """Open the whole stack, with the times from the user's list if there is one."""
        stack = open_stack(self.path, self.variable)
        if self.seconds is None:
            return stack
        if len(self.seconds) != stack.shape[0]:
            raise BadVideoError(
                f"has {stack.shape[0]} frames, but the list of times has {len(self.seconds)}"
            )
        return replace(stack, seconds=np.array(self.seconds))

    def clips(self, spec: CutSpec) -> Generator[CutClip, None, Counter[str]]:
        """Yield its clips in order of time; return counts of notable events, by name.

        Raises BadVideoError where it is damaged, LeftOutError where it gives no clip.
        """
        stack, notes = self.open(), Counter[str]()
        rule = None if self.keep_if is None else keep.parse(self.keep_if)
        seconds = times_of(stack, spec.fps)
        several = {"captions": list(self.captions)} if len(self.captions) > 1 else {}
        written = available = 0
        for first in self._starts(seconds, spec, notes):
            available += 1
            last = first + spec.clip_length
            video, missing = self._observed(self._window(stack.read(first, last)), spec)
            if video.dtype.kind == "f" and np.isinf(video).any():
                raise BadVideoError(
                    f"holds infinite values from frame {first} on, which no transform maps; "
                    "--missing=-inf (or inf) says that they were not observed"
                )
            if missing is not None and missing.all():
                notes["clips of no value, all NaN"] += 1
                continue
            if rule is not None and not rule(video):
                notes["clips that --keep_if leaves out"] += 1
                continue
            written += 1
            apart = None if video.dtype.kind == "f" else missing
            start, video, extra = _timed(seconds[first:last], video, missing, spec)
            yield CutClip(self.name, start, video, extra | several, apart)
        if not available:
            held = (self.frames[1] - self.frames[0]) if self.frames else stack.shape[0]
            raise LeftOutError(
                f"is too short: {held} frames, but a clip needs {spec.clip_length} in a row"
                + (f" within {self.clip_span:g} s" if self.clip_span else "")
            )
        if not written:
            raise LeftOutError("gives no clip: " + ", ".join(notes))
        return notes

    def _observed(
        self, frames: NDArray[Any], spec: CutSpec
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Resize frames to the cut's size; give the mask of what is missing, None if nothing is.

        Missing pixels are NaN in floating types, else 0; a pixel averaged over several is missing
        if one of them is.
        """
        absent = np.zeros(frames.shape, bool)
        if frames.dtype.kind == "f":
            absent |= np.isnan(frames)
        if self.missing is not None:
            absent |= frames == frames.dtype.type(self.missing)
        if not absent.any():
            return fitted(frames, spec), None
        video, absent = fitted(frames, spec), fitted(absent.astype(np.float32), spec) > 0
        video[absent] = np.nan if video.dtype.kind == "f" else 0
        return video, absent

    def _window(self, frames: NDArray[Any]) -> NDArray[Any]:
        if self.tile is None:
            return frames
        top, left, side = self.tile
        return frames[:, top : top + side, left : left + side]

    def _starts(
        self, seconds: NDArray[np.float64], spec: CutSpec, notes: Counter[str]
    ) -> Iterator[int]:
        """Yield the first frame of each clip; clips do not cross gaps in time."""
        begin, end = self.frames or (0, len(seconds))
        gap = _GAP / spec.fps
        breaks = [k for k in range(begin + 1, end) if seconds[k] - seconds[k - 1] > gap]
        if breaks:
            notes["gaps"] += len(breaks)
        for low, high in zip([begin, *breaks], [*breaks, end], strict=True):
            first = low
            while first + spec.clip_length <= high:
                span = seconds[first + spec.clip_length - 1] - seconds[first]
                if self.clip_span is not None and span > self.clip_span * (1 + 1e-6):
                    first += 1
                    continue
                yield first
                first += spec.clip_stride


def times_of(stack: Stack, fps: float) -> NDArray[np.float64]:
    """Compute the seconds of each frame since the first. BadVideoError where they do not rise."""
    if stack.seconds is None:
        return np.arange(stack.shape[0]) / fps
    if not (np.diff(stack.seconds) > 0).all():
        place = int(np.argmax(np.diff(stack.seconds) <= 0)) + 1
        raise BadVideoError(
            f"has times that do not rise: frame {place} is not after the one before"
        )
    return np.asarray(stack.seconds - stack.seconds[0])


def _timed(
    seconds: NDArray[np.float64],
    video: NDArray[Any],
    missing: NDArray[np.bool_] | None,
    spec: CutSpec,
) -> tuple[float, NDArray[Any], dict[str, Any]]:
    """Start, video, and the fields of KEY.json that say when uneven frames were."""
    apart = np.diff(seconds)
    extra: dict[str, Any] = {}
    if len(apart) and np.abs(apart * spec.fps - 1).max() > _UNEVEN:
        ticks = np.round((seconds - seconds[0]) * TICKS_PER_SECOND).astype(int).tolist()
        extra["times"] = {"ticks": ticks, "per_second": TICKS_PER_SECOND}
    if missing is not None:
        extra["not_observed"] = round(float(missing.mean()), 6)
    return round(float(seconds[0]), 6), video, extra
