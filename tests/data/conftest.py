"""Tiny videos whose frames say which they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sdevid.data.spec import CutSpec

MakeVideo = Callable[..., Path]
MakeSpec = Callable[..., CutSpec]


def level(frame: int) -> int:
    """The grey level that marks a frame."""
    return 20 + 6 * frame


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Write a video in which frame i is flat grey of `level(i)`, or the given images."""

    def make(
        name: str = "video.mp4",
        codec: str = "libx264",
        *,
        frames: int = 30,
        rate: Fraction | int = 15,
        pix_fmt: str = "yuv420p",
        size: tuple[int, int] = (64, 48),
        times: Sequence[int] | None = None,
        images: Sequence[np.ndarray] | None = None,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if images is None:
            images = [np.full((size[1], size[0], 3), level(i), np.uint8) for i in range(frames)]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            if aspect is not None:
                stream.sample_aspect_ratio = aspect
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for i, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = i if times is None else times[i]
                frame.time_base = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def make_spec() -> MakeSpec:
    """A cut of 16-pixel frames at 15 a second, with what is given instead."""

    def make(**changes: object) -> CutSpec:
        settings: dict[str, object] = {
            "frame_size": 16,
            "fps": 15.0,
            "clip_length": 8,
            "clip_stride": 8,
            "fit": "crop",
            "store": "npy",
        }
        return CutSpec(**(settings | changes))  # type: ignore[arg-type]

    return make
