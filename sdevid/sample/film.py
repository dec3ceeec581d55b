"""Videos as HTML that needs no file beside it."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from sdevid.sample import write
from sdevid.sample.write import Pixels


def film(videos: Pixels, fps: float, columns: int, side: int, title: str) -> str:
    """Encode videos (number, time, height, width, channels), side by side, as one HTML video."""
    sheet = write.tile(write.enlarge(videos, side), columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write.mp4(path, sheet, fps)
        source = _uri("video/mp4", path.read_bytes())
    return (
        f'<video src="{source}" poster="{png_uri(write.picture(sheet[0]))}" aria-label="{title}" '
        "controls loop muted playsinline></video>"
    )


def png_uri(image: Image.Image) -> str:
    """Encode an image as a PNG data URI."""
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return _uri("image/png", held.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
