"""Reads frames to condition on: pictures, or the start of a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from sdevid.data.decode import cut_video
from sdevid.data.spec import BadVideoError, CutSpec, LeftOutError
from sdevid.data.video.inspect import choose_stream
from sdevid.data.video.open import open_video
from sdevid.errors import UserError
from sdevid.sample.write import Frames

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class ObservedPictures:
    """Frames as the model takes them, and what was done to them on the way."""

    frames: Frames  # time, height, width, channels; NaN: not observed
    notes: tuple[str, ...]
    size: str  # in the files, width x height


def read(
    path: Path,
    count: int | None,
    most: int,
    shape: tuple[int, int],
    channels: int,
    fps: float,
    option: str = "--initial_frames",
) -> ObservedPictures:
    """Read the first `count` frames at `path` (None: all, at most `most`), (height, width) `shape`.

    `path` is a folder of pictures, taken in the natural order of their names, one picture, or a
    video, read at `fps` frames a second. Frames of another shape are cut to their middle
    and resized, colours become grey for a model of one channel; the notes say so.
    Raises UserError, which names `option`, for a missing or unreadable file, and for fewer frames
    than `count`.
    """
    if not path.exists():
        raise UserError(f"{option} {path} does not exist")
    wanted = most if count is None else count
    if path.is_dir() or path.suffix.lower() in PICTURES:
        frames = [_open(file, option) for file in _pictures(path, option)[:wanted]]
        size = _one_size(path, frames, option)
    else:
        frames, size = _start_of_video(path, shape, fps, wanted, option)
    if not frames or (count is not None and len(frames) < count):
        raise UserError(
            f"{option} {path} holds {len(frames)} frames, but "
            f"{count or 1} are needed; give more frames or a smaller --num_initial_frames"
        )
    return _fit(frames, size, shape, channels, option)


def _pictures(path: Path, option: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted((f for f in path.iterdir() if f.is_file()), key=_natural)
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    if not pictures:
        held = f"{len(files)} files, e.g. {files[0].name}" if files else "nothing"
        raise UserError(
            f"{option} {path} is a folder with no pictures (it holds {held}); give a "
            "folder of png or jpg files, one a frame, or the path of one video"
        )
    return pictures


def _natural(path: Path) -> list[tuple[int, str]]:
    """Split a name into text and numbers, a key that sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _open(path: Path, option: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{option}: {path} cannot be read as a picture: {error}") from error


def _start_of_video(
    path: Path, shape: tuple[int, int], fps: float, count: int, option: str
) -> tuple[list[Image.Image], str]:
    """Read the first frames of a video in this shape, cut as shards are, and its frame size."""
    height, width = shape
    spec = CutSpec(
        height, fps, clip_length=1, clip_stride=1, fit="crop", store="npy", frame_width=width
    )
    try:
        with open_video(path) as container:
            shown = choose_stream(container)
            size = f"{shown.width}x{shown.height}"
        clips = islice(cut_video(path, spec), count)
        return [Image.fromarray(clip[0]) for _, clip, _ in clips], size
    except (av.FFmpegError, BadVideoError, LeftOutError) as error:
        raise UserError(
            f"{option} {path} cannot be read as a video: {error}; give a video, a picture "
            "or a folder of pictures"
        ) from error


def _one_size(path: Path, frames: list[Image.Image], option: str) -> str:
    sizes = sorted({f"{frame.width}x{frame.height}" for frame in frames})
    if len(sizes) > 1:
        raise UserError(
            f"{option} {path} mixes frames of {sizes[0]} and {sizes[1]} pixels; give "
            "frames of one size"
        )
    return sizes[0]


def _fit(
    frames: list[Image.Image], size: str, shape: tuple[int, int], channels: int, option: str
) -> ObservedPictures:
    notes, kind = [], option.removeprefix("--").replace("_", " ")
    (height, width), part = shape, "middle square" if shape[0] == shape[1] else "middle"
    if size != f"{width}x{height}":
        notes.append(f"{kind} are {size}, the model's {width}x{height}: the {part} is resized")
    fitted = [ImageOps.fit(frame, (width, height), Image.Resampling.BICUBIC) for frame in frames]
    pixels = np.stack([np.asarray(frame) for frame in fitted])
    if channels == 1:
        if np.ptp(pixels, axis=-1).any():
            notes.append(f"{kind} have colours, the model has one channel: made grey")
        pixels = np.stack([np.asarray(frame.convert("L")) for frame in fitted])[..., None]
    return ObservedPictures(pixels, tuple(notes), size)
