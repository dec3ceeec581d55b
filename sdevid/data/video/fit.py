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

Image8 = UInt8[np.ndarray, "height width 3"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

_TOLD = {  # side data of a frame that changes how it should be seen, and is not handled
    "DOVI_METADATA": "Dolby Vision (not handled: base layer taken)",
    "STEREO3D": "two views for stereo (not handled: taken as one picture)",
    "SPHERICAL": "a spherical view (not handled: taken as it is stored)",
}


class Fit:
    """Crops or letterboxes frames to one shape; notes what is worth counting."""

    def __init__(
        self,
        shape: tuple[int, int],  # height, width
        fit: Literal["crop", "letterbox"],
        pixel_aspect: Fraction,
        notes: Counter[str],
    ) -> None:
        self._height, self._width = shape
        self._fit, self._aspect, self._notes = fit, float(pixel_aspect), notes
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Image8:
        turn, tone = orientation(frame), tone_map(frame)
        self._note(frame, turn.tilted, tone)
        aspect = 1 / self._aspect if turn.transposed else self._aspect
        if not tone.needed:
            stored = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            picture = Image.fromarray(np.ascontiguousarray(turn.apply(stored)))
            return np.asarray(self._fitted(picture, "RGB", aspect))
        stored = self._reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray()
        channels = np.moveaxis(turn.apply(stored).astype(np.float32) / 65_535, -1, 0)
        small = [
            np.asarray(self._fitted(Image.fromarray(np.ascontiguousarray(c)), "F", aspect))
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

    def _fitted(self, picture: Image.Image, mode: str, aspect: float) -> Image.Image:
        if self._fit == "crop":
            return self._crop(picture, aspect)
        shown = picture.width * aspect, picture.height
        scale = min(self._width / shown[0], self._height / shown[1])
        width, height = (max(1, round(scale * side)) for side in shown)
        whole = Image.new(mode, (self._width, self._height))
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        whole.paste(small, ((self._width - width) // 2, (self._height - height) // 2))
        return whole

    def _crop(self, picture: Image.Image, aspect: float) -> Image.Image:
        scale = min(picture.width * aspect / self._width, picture.height / self._height)
        width, height = scale * self._width / aspect, scale * self._height
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box: Box = (left, top, left + width, top + height)
        size = self._width, self._height
        return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def _rounded(picture: Float[np.ndarray, "height width 3"]) -> Image8:
    return np.round(255 * picture).astype(np.uint8)
