"""When decoded frames are shown: their order, and the stretches in which time runs on."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from av.video.frame import VideoFrame

from sdevid.data.video.inspect import Inspection

_LEAST_JUMP = 1  # seconds
_JUMP_PERIODS = 10


class Timed(NamedTuple):
    """A frame, when it is shown, and the stretch that it belongs to."""

    time: Fraction  # seconds from the first frame
    frame: VideoFrame
    stretch: int  # 0, and one more after each jump of time
    shot: int = 0  # 0, and one more after each cut, where cuts are looked for


def timed(frames: Iterator[VideoFrame], video: Inspection) -> Iterator[Timed]:
    """Yield frames in the order of showing, each with its time and stretch.

    A container without times of showing (AVI) gives timestamps in the order of decoding, so a
    frame's own is the smallest of those of the next frames. A jump forward of more than a second
    and ten periods, or a step back beyond reordering, ends a stretch. Time that steps back is
    counted on from the last frame.
    """
    waiting: deque[VideoFrame] = deque()
    stamps: list[Fraction] = []
    stretch, offset, latest = 0, Fraction(0), None
    for frame in frames:
        stamp = offset + _stamp(frame, latest, video.period, offset)
        if latest is None:
            offset, stamp = -stamp, Fraction(0)
        elif _jumps(stamp - latest, video):
            while waiting:
                yield Timed(heapq.heappop(stamps), waiting.popleft(), stretch)
            stretch += 1
            if stamp < latest:
                offset, stamp = offset + latest + video.period - stamp, latest + video.period
        latest = stamp if latest is None else max(latest, stamp)
        heapq.heappush(stamps, stamp)
        waiting.append(frame)
        if len(waiting) > video.reorder:
            yield Timed(heapq.heappop(stamps), waiting.popleft(), stretch)
    while waiting:
        yield Timed(heapq.heappop(stamps), waiting.popleft(), stretch)


def _stamp(
    frame: VideoFrame, latest: Fraction | None, period: Fraction, offset: Fraction
) -> Fraction:
    if frame.pts is not None and frame.time_base is not None:
        return frame.pts * frame.time_base
    return Fraction(0) if latest is None else latest + period - offset


def _jumps(step: Fraction, video: Inspection) -> bool:
    forward = step > max(Fraction(_LEAST_JUMP), _JUMP_PERIODS * video.period)
    return forward or step < -video.reorder * video.period
