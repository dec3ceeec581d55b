"""Cuts between shots, found by PySceneDetect. The only file that knows scenedetect."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from sdevid.data.video.timing import Timed
from sdevid.errors import UserError

CUTS = "cuts between shots (no clip crosses one)"
_WIDTH = 160  # pixels at which frames are compared
_AHEAD = 2  # frames after a cut that say whether it is one


def split_shots(frames: Iterator[Timed], period: Fraction, notes: Counter[str]) -> Iterator[Timed]:
    """Yield the frames, each with the number of its shot; a cut is counted in `notes`.

    A cut is where hue, saturation and luma change much from one frame to the next, or more than
    around it (PySceneDetect's ContentDetector and AdaptiveDetector). UserError where scenedetect
    is not installed.
    """
    changes = _Changes(float(1 / period))
    waiting: deque[tuple[int, Timed]] = deque()
    shot = 0
    for number, shown in enumerate(chain(frames, [None] * _AHEAD)):
        if shown is not None:
            changes.add(number, shown.frame)
            waiting.append((number, shown))
        if waiting and (shown is None or len(waiting) > _AHEAD):
            first, decided = waiting.popleft()
            if first in changes.cuts and first:
                shot += 1
                notes[CUTS] += 1
            yield decided._replace(shot=shot)


class _Changes:
    """Frames, counted from 0, at which a new shot begins; known `_AHEAD` frames later."""

    def __init__(self, fps: float) -> None:
        try:
            from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode
        except ImportError as error:
            raise UserError(
                "--shots on needs PySceneDetect; pip install 'sdevid[shots]', or leave it off"
            ) from error
        self._detectors = (
            ContentDetector(min_scene_len=0),
            AdaptiveDetector(min_scene_len=0, window_width=_AHEAD),
        )
        self._timecode, self._fps = FrameTimecode, fps
        self._reformatter = VideoReformatter()
        self.cuts: set[int] = set()

    def add(self, number: int, frame: VideoFrame) -> None:
        """Compare a frame with the one before."""
        image, now = _small(self._reformatter, frame), self._timecode(number, self._fps)
        for detector in self._detectors:
            self.cuts |= {cut.frame_num for cut in detector.process_frame(now, image)}


def _small(reformatter: VideoReformatter, frame: VideoFrame) -> Any:
    height = max(8, round(frame.height * _WIDTH / frame.width))
    small = reformatter.reformat(frame, _WIDTH, height, "bgr24", threads=1)
    return small.to_ndarray()
