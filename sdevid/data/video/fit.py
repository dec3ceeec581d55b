"""Decoded frames as small RGB pictures: upright, with square pixels, in the colours of BT.709."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8
from PIL import Image

from sdevid.data.video.orient import orientation
from sdevid.data.video.tone import ToneMap, tone_map

Image8 = UInt8[np.ndarray, "size size 3"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

_TOLD = {  # side data of a frame that changes how it should be seen, and is not handled
    "DOVI_METADATA": "Dolby Vision (not handled: base layer taken)",
    "STEREO3D": "two views for stereo (not handled: taken as one picture)",
    "SPHERICAL": "a spherical view (not handled: taken as it is stored)",
}


class Fit:
    """Crops or letterboxes frames to a square; notes what is worth counting."""

    def __init__(
        self,
        size: int,
        fit: Literal["crop", "letterbox"],
        pixel_aspect: Fraction,
        notes: Counter[str],
    ) -> None:
        self._size, self._fit, self._aspect = size, fit, float(pixel_aspect)
        self._notes = notes
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Image8:
        turn, tone = orientation(frame), tone_map(frame)
        self._note(frame, turn.tilted, tone)
        aspect = 1 / self._aspect if turn.transposed else self._aspect
        if not tone.needed:
            stored = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            picture = Image.fromarray(np.ascontiguousarray(turn.apply(stored)))
            return np.asarray(self._square(picture, "RGB", aspect))
        stored = self._reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray()
        channels = np.moveaxis(turn.apply(stored).astype(np.float32) / 65_535, -1, 0)
        small = [
            np.asarray(self._square(Image.fromarray(np.ascontiguousarray(c)), "F", aspect))
            for c in channels
        ]
        return _rounded(tone(np.stack(small, axis=-1)))

    def _note(self, frame: VideoFrame, tilted: bool, tone: ToneMap) -> None:
        if tone.note is not None:
            self._notes[tone.note] = 1
        if tilted:
            self._notes["tilted (turned to the nearest right angle)"] = 1
        for name, note in _TOLD.items():
            if frame.side_data.get(name) is not None:
                self._notes[note] = 1

    def _square(self, picture: Image.Image, mode: str, aspect: float) -> Image.Image:
        if self._fit == "crop":
            return self._crop(picture, aspect)
        shown = picture.width * aspect, picture.height
        width, height = (max(1, round(self._size * side / max(shown))) for side in shown)
        square = Image.new(mode, (self._size, self._size))
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        square.paste(small, ((self._size - width) // 2, (self._size - height) // 2))
        return square

    def _crop(self, picture: Image.Image, aspect: float) -> Image.Image:
        side = min(picture.width * aspect, picture.height)
        width, height = side / aspect, side
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box: Box = (left, top, left + width, top + height)
        return picture.resize((self._size, self._size), Image.Resampling.BICUBIC, box=box)


def _rounded(picture: Float[np.ndarray, "size size 3"]) -> Image8:
    return np.round(255 * picture).astype(np.uint8)
