"""Video files to uint8 clips at a stated rate and size, whatever the codec or container.

A file is inspected as a whole, then decoded once, in sequence, on one thread: seeking gives wrong
frames in some containers. Frames are chosen by their timestamps, so a variable frame rate comes
out right, and a clip never crosses a jump of time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import groupby, takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sdevid.clock import rational
from sdevid.data.payload import ClipVideo
from sdevid.data.spec import BadVideoError, CutSpec, LeftOutError
from sdevid.data.video.deinterlace import deinterlaced
from sdevid.data.video.ending import ending_fault
from sdevid.data.video.fit import Fit, Image8
from sdevid.data.video.inspect import MISSING_SHARE, Inspection, inspect
from sdevid.data.video.open import open_video, start_decoder
from sdevid.data.video.shots import CUTS, split_shots
from sdevid.data.video.timing import Timed, timed

Section = tuple[float, float]  # seconds from the first frame
_TRIM_SLACK = 0.5  # seconds
_MISSING = 0.75  # periods from the nearest frame, past which the frame of a time is missing

CutVideo = tuple[float, ClipVideo, dict[str, Any]]  # start in seconds, frames, fields of KEY.json


def cut_video(
    path: Path, spec: CutSpec, section: Section | None = None
) -> Generator[CutVideo, None, Counter[str]]:
    """Yield clips of a video: start in seconds, frames, and further fields of KEY.json.

    Target times are k / fps from the first frame of a stretch (or from the start of `section`);
    each takes the frame nearest in time. A clip lies within one stretch, and at least half of the
    frames that its length holds at the video's own rate are there. Returns counts of notable
    events, e.g. jumps of time. Raises BadVideoError where the file is damaged, LeftOutError where
    it is whole and gives no clip.
    """
    try:
        with open_video(path) as container:
            video = inspect(container)
            section = _inside(section, container.duration)
            fault = ending_fault(path, container.format.name)
        if fault is not None:
            raise BadVideoError(f"is cut off: {fault}")
        with open_video(path) as container:
            return (yield from _Cut(container, video, spec, section).clips())
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadVideoError(_reason(error, path)) from error


def is_grey(path: Path) -> bool:
    """Tell whether a video's pixel format is grey; False where it does not open."""
    try:
        with open_video(path) as container:
            return str(container.streams.video[0].codec_context.pix_fmt).startswith("gray")
    except (av.FFmpegError, IndexError, OSError):
        return False


class _Shown(NamedTuple):
    """A frame at a time of the cut."""

    time: float  # seconds
    picture: Image8
    is_again: bool  # the one before once more
    is_missing: bool  # the video has a gap here


class _Cut:
    """One video on its way into clips."""

    def __init__(
        self, container: InputContainer, video: Inspection, spec: CutSpec, section: Section | None
    ) -> None:
        self._container, self._video, self._spec = container, video, spec
        self._begin = Fraction(section[0]) if section else None
        self._stop = Fraction(section[1]) if section else None
        self._fps = rational(spec.fps)
        self._notes = Counter(dict.fromkeys(video.notes, 1))
        stream = container.streams[video.stream]
        assert isinstance(stream, VideoStream)
        start_decoder(stream)
        self._stream = stream
        aspect = stream.sample_aspect_ratio or Fraction(1)
        self._fit = Fit(spec.frame_shape, spec.fit, aspect, self._notes)

    def clips(self) -> Generator[CutVideo, None, Counter[str]]:
        """Yield the clips of one stretch after the other; return the notes."""
        cut = longest = 0
        frames = deinterlaced(self._decoded(), self._notes)
        shown: Iterator[Timed] = takewhile(self._before_stop, timed(frames, self._video))
        if self._spec.shots:
            shown = split_shots(shown, self._video.period, self._notes)
        for (stretch, shot), part in groupby(shown, key=attrgetter("stretch", "shot")):
            self._notes["jumps of time (no clip crosses one)"] = stretch
            window: deque[_Shown] = deque(maxlen=self._spec.clip_length)
            for count, image in enumerate(self._images(self._at_rate(part)), start=1):
                window.append(image)
                first, longest = count - self._spec.clip_length, max(longest, count)
                if first < 0 or first % self._spec.clip_stride:
                    continue
                distinct = 1 + sum(not image.is_again for image in list(window)[1:])
                if distinct < self._least_distinct():
                    self._notes["clips of too few frames (left out)"] += 1
                    continue
                cut += 1
                video = np.stack([image.picture for image in window])
                missing = [k for k, image in enumerate(window) if image.is_missing]
                self._notes["frames missing within clips (not observed)"] += len(missing)
                extra = self._extra(stretch, shot, distinct)
                yield window[0].time, video, extra | ({"missing": missing} if missing else {})
        if not longest and self._stop is None:
            raise BadVideoError("has no frame that decodes")
        if not cut:
            raise LeftOutError(self._too_short(longest))
        return +self._notes

    def _extra(self, stretch: int, shot: int, distinct: int) -> dict[str, Any]:
        """Collect further fields of KEY.json."""
        return {
            "source_fps": round(float(1 / self._video.period), 3),
            "repeated_frames": self._spec.clip_length - distinct,
            "jumps": stretch,
        } | ({"shot": shot} if self._spec.shots else {})

    def _least_distinct(self) -> int:
        """Compute the fewest distinct frames of a clip: half of those at the video's own rate."""
        length = self._spec.clip_length
        share = min(Fraction(1), 1 / (self._video.period * self._fps))
        return max(min(2, length), int(length * share / 2))

    def _too_short(self, longest: int) -> str:
        length, jumps = self._spec.clip_length, self._notes["jumps of time (no clip crosses one)"]
        rate = f"at {self._spec.fps:g} a second"
        if longest >= length:
            return f"shows too few frames: no clip of {length} {rate} holds half of its own"
        between = f" between {jumps} jumps of time" if jumps else ""
        between += f" between {self._notes[CUTS]} cuts" if self._notes[CUTS] else ""
        return f"is too short: {longest} frames {rate}{between}, but a clip needs {length}"

    def _decoded(self) -> Iterator[VideoFrame]:
        """Decode every frame. BadVideoError where one is corrupt or the last are missing."""
        end = 0.0
        for count, frame in enumerate(self._container.decode(self._stream)):
            if frame.is_corrupt:
                raise BadVideoError(f"is damaged at frame {count}")
            if frame.pts is not None and frame.time_base is not None:
                end = max(end, float(frame.pts * frame.time_base + self._video.period))
            yield frame
        if end and end < self._video.end * (1 - MISSING_SHARE) - self._video.slack:
            raise BadVideoError(
                f"ends after {end:.1f} of {self._video.end:.1f} s: the rest does not decode"
            )

    def _before_stop(self, shown: Timed) -> bool:
        return self._stop is None or shown.time < self._stop + self._video.period

    def _at_rate(self, frames: Iterator[Timed]) -> Iterator[tuple[float, VideoFrame, bool]]:
        """Yield the frame nearest to each time k / fps from the first; of a tie, the earlier.

        Each comes with its time and whether it is missing: further away than the video's own rate
        and the cut's allow. The last frame counts for half a period beyond its time.
        """
        k, before = 0, next(frames)
        start = before.time if self._begin is None else max(before.time, self._begin)
        while True:
            after = next(frames, None)
            half = self._video.period / 2
            border = before.time + half if after is None else (before.time + after.time) / 2
            while (wanted := start + k / self._fps) <= border:
                if self._stop is not None and wanted >= self._stop:
                    return
                gap = abs(wanted - before.time) > _MISSING * max(self._video.period, 1 / self._fps)
                yield round(float(wanted), 6), before.frame, gap
                k += 1
            if after is None:
                return
            before = after

    def _images(self, frames: Iterator[tuple[float, VideoFrame, bool]]) -> Iterator[_Shown]:
        """Convert each frame to an image of the cut's size."""
        shown, spec = None, self._spec
        image = np.zeros((*spec.frame_shape, 3), np.uint8)
        for k, (time, frame, gap) in enumerate(frames):
            if k % spec.clip_stride < spec.clip_length and frame is not shown:
                image = self._fit(frame)
            yield _Shown(time, image, frame is shown, gap)
            shown = frame


def _inside(section: Section | None, length: int | None) -> Section | None:
    """Keep the section, unless the file (of `length` microseconds) was already trimmed to it."""
    if section is None or length is None or length / av.time_base < section[1] - _TRIM_SLACK:
        return None
    return section


def _reason(error: Exception, path: Path) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "is an empty file"
    reason = error.strerror if isinstance(error, av.FFmpegError | OSError) else error
    return f"does not decode: {reason}"
