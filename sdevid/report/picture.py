"""Pictures inside the page: PNG and mp4 as data URIs."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sdevid.sample import write
from sdevid.sample.write import Pixels

GAP = 2  # pixels between frames of a strip


def film(videos: Pixels, fps: float, columns: int, side: int, title: str) -> str:
    """Videos (number, time, height, width, channels) side by side as one film with controls."""
    sheet = write.tile(write.enlarge(videos, side), columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write.mp4(path, sheet, fps)
        source = _uri("video/mp4", path.read_bytes())
    return (
        f'<video src="{source}" poster="{_png(write.picture(sheet[0]))}" aria-label="{title}" '
        "controls loop muted playsinline></video>"
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
    return _uri("image/png", held.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
