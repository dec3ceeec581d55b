"""Pictures inside the page: PNG as data URIs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdevid.sample import write
from sdevid.sample.film import png_uri
from sdevid.sample.write import Pixels

GAP = 2  # pixels between frames of a strip


def strip(frames: Pixels, before: int, title: str) -> str:
    """Lay frames (time, height, width, channels) in a row, after room for `before` more."""
    large = write.enlarge(frames, 48)
    count, height, width, channels = large.shape
    canvas = np.zeros((height, (before + count) * (width + GAP) - GAP, 4), np.uint8)
    for i, frame in enumerate(large, start=before):
        cell = canvas[:, i * (width + GAP) : i * (width + GAP) + width]
        cell[..., :3] = frame if channels == 3 else frame.repeat(3, axis=-1)
        cell[..., 3] = 255
    return f'<img src="{png_uri(Image.fromarray(canvas))}" alt="{title}">'
