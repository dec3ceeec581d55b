"""mp4 clips decoded with one open decoder: opening container and codec is most of a small clip.

The boxes of the file (ISO/IEC 14496-12 and 14496-15) say where the frames lie; the packets go to a
decoder that stays open for all clips with the same parameters, a thread. Only what the plain
decoder would show in the same way is taken: one H.264 track, frames in the order of decoding.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "height width channels"]

_ENTRY = 86  # bytes of an avc1 entry before its boxes
_KNOWN = {b"avcC", b"pasp", b"btrt"}  # boxes of an entry that leave pixels as the stream has them
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_MOST_FRAMES = 2**20
_OPEN = 4  # decoders a thread
_MARGIN = 64  # pixels that a decoder may work with beyond a frame's sides


def images(payload: bytes, shape: tuple[int, int, int, int]) -> Iterator[Image] | None:
    """Decode the frames of a file in order; None for one less simple than `payload.encode`'s.

    `shape` is the clip's by the index: time, height, width, channels. Raises av.FFmpegError where a
    packet does not decode.
    """
    try:
        packets = _packets(memoryview(payload))
    except (struct.error, KeyError, IndexError, ValueError, RecursionError, MemoryError):
        return None
    if packets is None:
        return None
    return _decoded(*packets, shape)


def _decoded(
    parameters: bytes, packets: list[bytes], shape: tuple[int, int, int, int]
) -> Iterator[Image]:
    import av

    _, height, width, channels = shape

    codec, reformatter = _decoders.get(parameters, (height + _MARGIN) * (width + _MARGIN))
    whole = False
    try:
        for packet in [*packets, None]:
            for frame in codec.decode(None if packet is None else av.Packet(packet)):
                shown = reformatter.reformat(frame, format="gray" if channels == 1 else "rgb24")
                plane = shown.planes[0]
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                rows = rows[: shown.height, : shown.width * channels]
                yield rows.reshape(shown.height, shown.width, channels)
        codec.flush_buffers()
        whole = True
    finally:
        if not whole:
            _decoders.drop()  # what a broken clip has left in them is not for the next


class _Decoders(threading.local):
    """Open decoders by their parameters, a thread."""

    def __init__(self) -> None:
        self.drop()

    def drop(self) -> None:
        self.get = lru_cache(_OPEN)(_open)


def _open(parameters: bytes, most_pixels: int) -> tuple[Any, Any]:
    import av
    from av.video.reformatter import VideoReformatter

    codec = av.CodecContext.create("h264", "r")
    codec.extradata = parameters
    codec.thread_count = 1
    codec.options = {"max_pixels": str(most_pixels)}
    return codec, VideoReformatter()


_decoders = _Decoders()


def _packets(file: memoryview) -> tuple[bytes, list[bytes]] | None:
    """Read the decoder's parameters and each frame's bytes; None for a less simple file."""
    boxes: dict[bytes, list[memoryview]] = {}
    for kind, content in _boxes(file):
        boxes.setdefault(kind, []).append(content)
    if len(boxes[b"trak"]) != 1 or b"ctts" in boxes or not _starts_at_once(boxes.get(b"elst", [])):
        return None
    entries, entry_size, kind = struct.unpack_from(">II4s", boxes[b"stsd"][0], 4)
    entry = boxes[b"stsd"][0][8 : 8 + entry_size]
    described = dict(_children(entry[_ENTRY:]))
    if entries != 1 or kind != b"avc1" or not described.keys() <= _KNOWN:
        return None
    sizes = _sizes(boxes[b"stsz"][0])
    offsets = _table(boxes[b"stco"][0], 1)
    packets: list[bytes] = []
    for (place,), count in zip(
        offsets, _chunk_lengths(boxes[b"stsc"][0], len(offsets)), strict=True
    ):
        for size in sizes[len(packets) : len(packets) + count]:
            packets.append(bytes(file[place : place + size]))
            place += size
    if len(packets) != len(sizes) or any(len(p) != n for p, n in zip(packets, sizes, strict=True)):
        return None
    return bytes(described[b"avcC"]), packets


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield all boxes, nested ones too."""
    for kind, inside in _children(content):
        yield kind, inside
        if kind in _CONTAINERS:
            yield from _boxes(inside)


def _children(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    place = 0
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if size < 8 or place + size > len(content):
            raise ValueError("a box of no size, of 64 bits or past the end")
        yield kind, content[place + 8 : place + size]
        place += size


def _table(box: memoryview, columns: int) -> list[tuple[int, ...]]:
    """Read the rows of a box: version and flags, the row count, and 32 bits a column."""
    (rows,) = struct.unpack_from(">I", box, 4)
    values = struct.unpack_from(f">{rows * columns}I", box, 8)
    return [values[k : k + columns] for k in range(0, len(values), columns)]


def _sizes(box: memoryview) -> list[int]:
    """Read the size of each frame in bytes."""
    same, count = struct.unpack_from(">II", box, 4)
    if same and count > _MOST_FRAMES:
        raise ValueError(f"{count} frames")
    return [same] * count if same else list(struct.unpack_from(f">{count}I", box, 12))


def _chunk_lengths(box: memoryview, chunks: int) -> list[int]:
    """Read the number of frames of each chunk."""
    runs = _table(box, 3)
    ends = [first - 1 for first, _, _ in runs[1:]] + [chunks]
    lengths: list[int] = []
    for (_, frames, _), end in zip(runs, ends, strict=True):
        lengths += [frames] * (end - len(lengths))
    return lengths


def _starts_at_once(edits: list[memoryview]) -> bool:
    """Tell whether no edit list leaves out frames."""
    if not edits:
        return True
    version, count = struct.unpack_from(">B3xI", edits[0])
    if len(edits) > 1 or version != 0 or count != 1:
        return False
    _, begin, rate = struct.unpack_from(">IiI", edits[0], 8)
    return bool(begin == 0 and rate == 1 << 16)
