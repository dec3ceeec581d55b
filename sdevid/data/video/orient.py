"""Turns pictures upright: the eight orientations that a display matrix can state."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Shaped

Picture = Shaped[np.ndarray, "height width ..."]

_TILTED = 0.02  # share of the smaller entries of a matrix, above which it is no right angle


class Orientation(NamedTuple):
    """How a stored picture becomes the one to be seen: transposed first, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False
    tilted: bool = False  # the matrix states an angle between these eight; the nearest is taken

    def apply(self, picture: Picture) -> Picture:
        """Turn a picture (height, width, ...) upright, as a view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


def orientation(frame: VideoFrame) -> Orientation:
    """Read a frame's display matrix; upright where it has none.

    The matrix (a b u; c d v; x y w) sends (p, q) to (a p + c q, b p + d q), with q downwards
    (ISO/IEC 14496-12, 8.3.2); it is the one of FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", memoryview(data))  # type: ignore[arg-type]
    straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
    tilted = min(straight, crossed) > _TILTED * max(straight, crossed)
    if crossed > straight:
        return Orientation(True, c < 0, b < 0, tilted)
    return Orientation(False, a < 0, d < 0, tilted)
