"""Video files to uint8 clips at a stated rate and size, whatever the codec or container.

A file is decoded once, in sequence, on one thread: seeking gives wrong frames in some containers.
Frames are chosen by their timestamps, so a variable frame rate comes out right.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import Image

from sdevid.data.payload import ClipVideo
from sdevid.data.spec import BadVideoError, CutSpec

Section = tuple[float, float]  # seconds from the first frame
_REORDER = 16  # frames; H.264 and HEVC hold back no more
_LEAST_DECODED = 0.9  # of the frames that the header counts
_STILL = ("image2", "_pipe")  # ends of the names of FFmpeg's readers of still images
_TRIM_SLACK = 0.5  # seconds

Timed = tuple[Fraction, VideoFrame]  # seconds from the first frame
Image8 = UInt8[np.ndarray, "size size 3"]


def cut_video(
    path: Path, spec: CutSpec, section: Section | None = None
) -> Iterator[tuple[float, ClipVideo, dict[str, Any]]]:
    """Clips of a video: start in seconds, frames, and further fields of KEY.json.

    Target times are k / fps from the first frame (or from the start of `section`); each takes the
    frame nearest in time. Raises BadVideoError with the reason where the file does not decode to
    its end or is too short for one clip.
    """
    try:
        with av.open(str(path), "r") as container:
            if not container.streams.video:
                raise BadVideoError("has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if container.format.name.endswith(_STILL):
                raise BadVideoError(f"is a still image ({stream.codec_context.name}), not a video")
            yield from _clips(container, spec, _inside(section, container.duration))
    except (av.FFmpegError, ValueError) as error:
        raise BadVideoError(_reason(error, path)) from error


def _clips(
    container: InputContainer, spec: CutSpec, section: Section | None
) -> Iterator[tuple[float, ClipVideo, dict[str, Any]]]:
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    fps = Fraction(spec.fps).limit_denominator(100_000)
    begin = section[0] if section else 0.0
    chosen = _at_rate(_timed(_decoded(container, stream), 1 / rate), fps, 1 / rate, section)
    window: deque[tuple[Image8, bool]] = deque(maxlen=spec.clip_length)
    count = made = 0
    for image, repeated in _images(chosen, spec, stream.sample_aspect_ratio or Fraction(1)):
        window.append((image, repeated))
        count += 1
        first = count - spec.clip_length
        if first >= 0 and first % spec.clip_stride == 0:
            extra = {
                "source_fps": round(float(rate), 3),
                "repeated_frames": sum(again for _, again in list(window)[1:]),
            }
            video = np.stack([image for image, _ in window])
            yield round(begin + float(first / fps), 6), video, extra
            made += 1
    if not made:
        raise BadVideoError(
            f"is too short: {count} frames at {spec.fps:g} a second, but a clip needs "
            f"{spec.clip_length}"
        )


def _images(
    frames: Iterator[VideoFrame], spec: CutSpec, aspect: Fraction
) -> Iterator[tuple[Image8, bool]]:
    """Each frame as a square image, and whether it is the one before once more."""
    fit = _Fit(spec.frame_size, spec.fit, aspect)
    shown, image = None, np.zeros((spec.frame_size, spec.frame_size, 3), np.uint8)
    for k, frame in enumerate(frames):
        if k % spec.clip_stride < spec.clip_length and frame is not shown:
            image = fit(frame)
        yield image, frame is shown
        shown = frame


def _at_rate(
    frames: Iterator[Timed], fps: Fraction, period: Fraction, section: Section | None
) -> Iterator[VideoFrame]:
    """The frame nearest to each time k / fps from the first, of two as near the earlier.

    The last frame stands for half a `period` beyond its time. A `section` moves the first time and
    ends the frames.
    """
    k, before = 0, next(frames, None)
    if before is None:
        raise BadVideoError("has no frames")
    start = before[0] + Fraction(section[0] if section else 0)
    stop = before[0] + Fraction(section[1]) if section else None
    while before is not None:
        after = next(frames, None)
        border = before[0] + period / 2 if after is None else (before[0] + after[0]) / 2
        while (wanted := start + k / fps) <= border:
            if stop is not None and wanted >= stop:
                return
            yield before[1]
            k += 1
        before = after


def _timed(frames: Iterator[VideoFrame], period: Fraction) -> Iterator[Timed]:
    """Frames in the order of showing, each with its time in seconds.

    A container without presentation times (AVI) gives timestamps in the order of decoding, so a
    frame's own is the smallest of those of the next frames.
    """
    waiting: deque[VideoFrame] = deque()
    stamps: list[Fraction] = []
    stamp = Fraction(0)
    for frame in frames:
        if frame.pts is None or frame.time_base is None:
            stamp += period
        else:
            stamp = frame.pts * frame.time_base
        heapq.heappush(stamps, stamp)
        waiting.append(frame)
        if len(waiting) > _REORDER:
            yield heapq.heappop(stamps), waiting.popleft()
    while waiting:
        yield heapq.heappop(stamps), waiting.popleft()


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame of the stream. BadVideoError where one is corrupt or the file is cut off."""
    count = 0
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise BadVideoError(f"is damaged at frame {count}")
        count += 1
        yield frame
    if count < _LEAST_DECODED * stream.frames:
        raise BadVideoError(f"ends after {count} of {stream.frames} frames")


class _Fit:
    """A decoded frame as a square RGB image, upright, with square pixels."""

    def __init__(
        self, size: int, fit: Literal["crop", "letterbox"], pixel_aspect: Fraction
    ) -> None:
        self._size, self._fit, self._aspect = size, fit, float(pixel_aspect)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Image8:
        picture = Image.fromarray(self._reformatter.reformat(frame, format="rgb24").to_ndarray())
        square = self._crop(picture) if self._fit == "crop" else self._letterbox(picture)
        return np.ascontiguousarray(np.rot90(np.asarray(square), frame.rotation // 90))

    def _crop(self, picture: Image.Image) -> Image.Image:
        side = min(picture.width * self._aspect, picture.height)
        width, height = side / self._aspect, side
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (left, top, left + width, top + height)
        return picture.resize((self._size, self._size), Image.Resampling.BICUBIC, box=box)

    def _letterbox(self, picture: Image.Image) -> Image.Image:
        shown = picture.width * self._aspect, picture.height
        width, height = (max(1, round(self._size * side / max(shown))) for side in shown)
        square = Image.new("RGB", (self._size, self._size))
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        square.paste(small, ((self._size - width) // 2, (self._size - height) // 2))
        return square


def _inside(section: Section | None, length: int | None) -> Section | None:
    """The section, unless the file (of `length` microseconds) was trimmed to it already."""
    if section is None or length is None or length / av.time_base < section[1] - _TRIM_SLACK:
        return None
    return section


def _reason(error: Exception, path: Path) -> str:
    if path.is_file() and path.stat().st_size == 0:
        return "is an empty file"
    said = error.strerror if isinstance(error, av.FFmpegError) else error
    return f"does not decode: {said}"
