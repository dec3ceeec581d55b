"""How one clip is stored: npy (lossless), jpeg (one sheet of frames) or mp4 (compact); in tars of
other makers also in another container."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from sdevid.clock import rational
from sdevid.data import mp4
from sdevid.data.npy import read_npy, write_npy
from sdevid.data.x264 import SAME_BYTES

Store = Literal["npy", "jpeg", "mp4"]
ClipVideo = UInt8[np.ndarray, "time height width channels"]
Shape = tuple[int, int, int, int]  # time, height, width, channels

EXTENSION: dict[Store, str] = {"npy": "npy", "jpeg": "jpg", "mp4": "mp4"}
CONTAINERS = {  # FFmpeg's format by extension
    "mp4": "mp4",
    "avi": "avi",
    "mov": "mov",
    "mkv": "matroska",
    "webm": "matroska",
}
_BLOCK = 8  # side of a JPEG block at 4:4:4; frames start on block borders, so they do not mix
_LONGEST = 65_500 // _BLOCK * _BLOCK  # JPEG's longest side
_JPEG_QUALITY = 95


def default_store(frame_size: int) -> Store:
    """Choose npy up to 128 pixels, jpeg above."""
    return "npy" if frame_size <= 128 else "jpeg"


def encode(store: Store, video: ClipVideo, fps: float) -> bytes:
    """Encode a clip as the bytes of one tar member; the same clip gives the same bytes."""
    if store == "npy":
        return write_npy(video)
    return _to_sheet(video) if store == "jpeg" else _to_mp4(video, fps)


def decode(extension: str, payload: bytes, shape: Shape, dtype: str = "uint8") -> ClipVideo:
    """Decode a clip of `shape` (time, height, width, channels) and `dtype` from a member's bytes.

    Raises ValueError where the bytes hold anything else.
    """
    try:
        if extension == "npy":
            video = _from_npy(payload, shape, dtype)
        elif extension in CONTAINERS:
            video = _from_container(extension, payload, shape)
        else:
            video = _from_sheet(payload, shape)
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"the {extension} payload does not decode: {error}") from error
    if video.shape != shape or video.dtype != dtype:
        wanted = f"not {dtype} {shape}"
        raise ValueError(f"the {extension} payload holds {video.dtype} {video.shape}, {wanted}")
    return video


@lru_cache(maxsize=64)
def npy_header(shape: Shape, dtype: str = "uint8") -> bytes:
    """Encode the header of an npy payload of this kind, as `encode` writes it."""
    buffer = io.BytesIO()
    layout = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, layout)
    return buffer.getvalue()


def _from_npy(payload: bytes, shape: Shape, dtype: str) -> ClipVideo:
    header, size = npy_header(shape, dtype), math.prod(shape) * np.dtype(dtype).itemsize
    if payload.startswith(header) and len(payload) == len(header) + size:
        return np.frombuffer(payload, dtype, offset=len(header)).reshape(shape)
    return read_npy(payload)


def _grid(shape: Shape) -> tuple[int, int, int, int]:
    """Compute a sheet's rows and columns, and its cells' height and width in whole JPEG blocks."""
    frames, height, width, _ = shape
    cell_height, cell_width = (-(-side // _BLOCK) * _BLOCK for side in (height, width))
    rows = min(frames, max(1, _LONGEST // cell_height))
    columns = -(-frames // rows)
    return rows, columns, cell_height, cell_width


def _to_sheet(video: ClipVideo) -> bytes:
    import simplejpeg

    rows, columns, cell_height, cell_width = _grid(video.shape)
    frames, height, width, channels = video.shape
    margins = ((0, 0), (0, cell_height - height), (0, cell_width - width), (0, 0))
    cells = np.pad(video, margins, mode="edge")
    cells = np.pad(cells, ((0, rows * columns - frames), (0, 0), (0, 0), (0, 0)))
    cells = cells.reshape(columns, rows * cell_height, cell_width, channels)
    sheet = np.ascontiguousarray(np.concatenate(list(cells), axis=1))
    space = "GRAY" if channels == 1 else "RGB"
    subsampling = "Gray" if channels == 1 else "444"
    encoded: bytes = simplejpeg.encode_jpeg(
        sheet, quality=_JPEG_QUALITY, colorspace=space, colorsubsampling=subsampling
    )
    return encoded


def _from_sheet(payload: bytes, shape: Shape) -> ClipVideo:
    import simplejpeg

    rows, columns, cell_height, cell_width = _grid(shape)
    frames, height, width, channels = shape
    size = simplejpeg.decode_jpeg_header(payload)[:2]
    if size != (rows * cell_height, columns * cell_width):
        raise ValueError(f"a sheet of {size[1]} x {size[0]} pixels is not that of {shape}")
    sheet = simplejpeg.decode_jpeg(payload, colorspace="GRAY" if channels == 1 else "RGB")
    sheet = sheet.reshape(rows * cell_height, columns, cell_width, channels).swapaxes(0, 1)
    cells = sheet.reshape(rows * columns, cell_height, cell_width, channels)
    return np.ascontiguousarray(cells[:frames, :height, :width])


def _to_mp4(video: ClipVideo, fps: float) -> bytes:
    import av

    _, height, width, channels = video.shape
    even = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        rate = rational(fps)
        options = {"crf": "18", "preset": "medium", **SAME_BYTES}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for image in even:
            pixels = np.ascontiguousarray(image[..., 0] if channels == 1 else image)
            frame = av.VideoFrame.from_ndarray(pixels, format="gray" if channels == 1 else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _from_container(extension: str, payload: bytes, shape: Shape) -> ClipVideo:
    import av  # here alone: other stores are read where it is absent

    try:
        return _frames(extension, payload, shape)
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from error


def _frames(extension: str, payload: bytes, shape: Shape) -> ClipVideo:
    frames, height, width, channels = shape
    video = np.zeros(shape, dtype=np.uint8)
    count = 0
    padded = height + height % 2, width + width % 2  # as `encode` writes them
    simple = mp4.images(payload, shape) if extension == "mp4" else None
    for image in simple or images(extension, payload, channels):
        if image.shape[:2] not in (padded, (height, width)) or count == frames:
            raise ValueError(f"more than {frames} frames, or frames of {image.shape[:2]} pixels")
        video[count] = image[:height, :width]
        count += 1
    if count != frames:
        raise ValueError(f"{count} frames, not {frames}")
    return video


def images(extension: str, payload: bytes, channels: int) -> Iterator[mp4.Image]:
    """Decode the frames of any video that FFmpeg reads, in order.

    Raises av.FFmpegError where it does not decode.
    """
    from sdevid.data.video.open import open_payload, start_decoder

    with open_payload(payload, CONTAINERS[extension]) as container:
        stream = container.streams.video[0]
        start_decoder(stream)
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
            yield pixels.reshape(*pixels.shape[:2], channels)
