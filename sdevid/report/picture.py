"""Pictures inside the page: PNG and GIF as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sdevid.sample import write
from sdevid.sample.write import Pixels

GAP = 2  # pixels between frames of a strip


def animation(videos: Pixels, fps: float, columns: int, side: int, title: str) -> str:
    """Videos as one endless GIF of tiles; a still picture for who wants no motion."""
    sheet = write.tile(write.enlarge(videos, side), columns)
    moving = io.BytesIO()
    write.gif(moving, sheet, fps)
    still = _png(write.picture(sheet[0]))
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img src="{_uri("gif", moving.getvalue())}" alt="{title}"></picture>'
    )


def strip(frames: Pixels, before: int, title: str) -> str:
    """Frames (time, height, width, channels) in a row, after room for `before` more."""
    large = write.enlarge(frames, 48)
    count, height, width, channels = large.shape
    canvas = np.zeros((height, (before + count) * (width + GAP) - GAP, 4), np.uint8)
    for i, frame in enumerate(large, start=before):
        cell = canvas[:, i * (width + GAP) : i * (width + GAP) + width]
        cell[..., :3] = frame if channels == 3 else frame.repeat(3, axis=-1)
        cell[..., 3] = 255
    return f'<img src="{_png(Image.fromarray(canvas))}" alt="{title}">'


def _png(image: Image.Image) -> str:
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return _uri("png", held.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
