"""Inspects a video file as a whole, by its packets, before anything of it is decoded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median

from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from sdevid.data.spec import BadVideoError, LeftOutError
from sdevid.data.video.open import STILL, start_decoder

_DEFAULT_BONUS = 5_000_000  # pixels that the default flag outweighs, as in FFmpeg's own choice
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
MISSING_SHARE, _MISSING_SECONDS, _MISSING_FRAMES = 0.04, 0.25, 3  # allowed at the end
_UNTIMED = ("avi", "h264", "hevc", "vvc", "mpegvideo", "m4v", "vc1", "mjpeg")
_MATROSKA = "matroska"
_HEADED = ("flv", "asf", "mxf", "nut", "ivf")  # their header states how long the file is shown
_REORDERED = 16  # frames; H.264 and HEVC hold back no more
_STEP_BACK = 2  # frames, where packets carry the time of showing


@dataclass(frozen=True)
class Inspection:
    """What the packets of a file say of its video."""

    stream: int  # index of the video stream that is shown
    period: Fraction  # seconds between frames, the median
    end: float  # seconds at which the last packet's frame ends, by its timestamps
    reorder: int  # frames by which timestamps may run backwards
    notes: tuple[str, ...]  # what is worth counting, e.g. several video streams

    @property
    def slack(self) -> float:
        """Seconds that may be missing at the end."""
        return max(_MISSING_SECONDS, _MISSING_FRAMES * float(self.period))


def inspect(container: InputContainer) -> Inspection:
    """Choose the stream and read all packets. The container must be opened anew to decode.

    Raises LeftOutError where there is no video in it, BadVideoError where the file is cut off:
    its packets end before the time that its header states.
    """
    stream = choose_stream(container)
    video: list[tuple[int, int]] = []  # timestamp, duration, of packets that are shown
    ends: dict[int, float] = defaultdict(float)  # of each stream, in seconds
    for packet in container.demux():
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or packet.is_discard:
            continue
        if packet.stream_index == stream.index:
            video.append((stamp, packet.duration or 0))
        end = float((stamp + (packet.duration or 0)) * _base(packet))
        ends[packet.stream_index] = max(ends[packet.stream_index], end)
    base = stream.time_base or Fraction(1, 90_000)
    period = _period(stream, (stamp for stamp, _ in video), base)
    end = max((float((at + (lasts or period / base)) * base) for at, lasts in video), default=0.0)
    untimed = container.format.name in _UNTIMED
    notes = [] if _alone(container, stream) else ["several video streams"]
    inspection = Inspection(
        stream.index, period, end, _REORDERED if untimed else _STEP_BACK, tuple(notes)
    )
    start = min((float(at * base) for at, _ in video), default=0.0)
    _check_whole(container, stream, inspection, max(ends.values(), default=0.0), start)
    return inspection


def choose_stream(container: InputContainer) -> VideoStream:
    """Choose the stream as FFmpeg does: most pixels; the default flag counts as five million.

    Never a cover. Raises LeftOutError where the file shows no moving picture.
    """
    shown = [s for s in container.streams.video if not Disposition(s.disposition) & _COVER]
    if not shown:
        cover = " but a cover" if container.streams.video else ""
        raise LeftOutError(f"has no video stream{cover}")
    best = max(shown, key=_score)  # the first of equals
    if container.format.name.endswith(STILL):
        raise LeftOutError(f"is a still image ({best.codec_context.name}), not a video")
    if best.codec_context is None:
        raise BadVideoError("is coded in a way that FFmpeg does not know")
    start_decoder(best)
    return best


def _score(stream: VideoStream) -> int:
    codec = stream.codec_context
    pixels = 0 if codec is None else codec.width * codec.height
    return pixels + _DEFAULT_BONUS * bool(Disposition(stream.disposition) & Disposition.default)


def _alone(container: InputContainer, stream: VideoStream) -> bool:
    others = [s for s in container.streams.video if s.index != stream.index]
    return all(Disposition(s.disposition) & _COVER for s in others)


def _period(stream: VideoStream, stamps: Iterable[int], base: Fraction) -> Fraction:
    """Compute the median time between frames, or the declared period where they are too few."""
    ordered = sorted(stamps)
    steps = [b - a for a, b in pairwise(ordered) if b > a]
    if len(steps) >= 2:
        return Fraction(median(steps)) * base
    rate = stream.average_rate or stream.guessed_rate
    return 1 / Fraction(rate) if rate else Fraction(1, 25)


def _base(packet: Packet[Stream]) -> Fraction:
    return packet.time_base or Fraction(1, 90_000)


def _check_whole(
    container: InputContainer,
    stream: VideoStream,
    inspection: Inspection,
    last: float,
    start: float,
) -> None:
    """Compare the time shown with the time stated, edit lists counted. BadVideoError if cut off.

    `last` is the end of the last packet of any stream, `start` the first of the video, in seconds.
    """
    kind, whole = container.format.name.split(",")[0], (container.duration or 0) / 1e6
    shown, stated = inspection.end, whole
    if kind == "mov":
        shown = inspection.end - start
        stated = float(stream.duration * _ticks(stream)) if stream.duration else 0.0
    elif kind == "avi":
        shown, stated = inspection.end - start, float(stream.frames * inspection.period)
    elif kind == _MATROSKA:
        own = _tagged(stream)
        shown, stated = (inspection.end, own) if own else (last, whole)
    elif kind in _HEADED:
        shown = last
    else:
        return  # no header states a time
    if shown < stated * (1 - MISSING_SHARE) - inspection.slack:
        raise BadVideoError(
            f"is cut off: its header states {stated:.1f} s, but it holds {max(shown, 0):.1f} s"
        )


def _ticks(stream: VideoStream) -> Fraction:
    """Return the seconds of a tick of the stream's timestamps."""
    return stream.time_base or Fraction(1, 90_000)


def _tagged(stream: VideoStream) -> float:
    """Read the seconds in a Matroska stream's DURATION tag; 0 where there is none."""
    for name, text in stream.metadata.items():
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip("\0 "))
        if match and name.upper().startswith("DURATION"):
            hours, minutes, seconds = match.groups()
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return 0.0
