"""Whether a file ends where its own structure does, in formats whose header states no length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.logging

_TAIL = 2**17  # bytes; more than an Ogg page
_TS_PACKETS = {188: 0, 192: 4, 204: 0}  # bytes of a packet, and where its sync byte stands
_SYNC = 0x47
_EARLY = re.compile(r"ended prematurely|partial file|truncated", re.IGNORECASE)


def ending_fault(path: Path, kind: str) -> str | None:
    """Why the file of FFmpeg's format `kind` ends too early, or None."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4 * 204)
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
    check = {"mpegts": _mpegts, "ogg": _ogg, "gif": _gif}.get(kind)
    return None if check is None else check(head, tail, size)


def _mpegts(head: bytes, tail: bytes, size: int) -> str | None:
    for length, sync in _TS_PACKETS.items():
        if all(
            head[k + sync : k + sync + 1] == bytes([_SYNC]) for k in range(0, len(head), length)
        ):
            rest = size % length
            begun = rest > sync and tail[len(tail) - rest + sync] == _SYNC
            return "ends within a packet of its transport stream" if begun else None
    return None


def _ogg(head: bytes, tail: bytes, size: int) -> str | None:  # noqa: ARG001
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return "ends within a page of its Ogg stream"
    segments = tail[page + 26]
    table = tail[page + 27 : page + 27 + segments]
    whole = len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
    return None if whole else "ends within a page of its Ogg stream"


def _gif(head: bytes, tail: bytes, size: int) -> str | None:  # noqa: ARG001
    return None if tail.rstrip(b"\0").endswith(b"\x3b") else "ends without the trailer of a GIF"


@contextmanager
def reading_errors() -> Iterator[list[str]]:
    """What FFmpeg says of a file that ends early, in a list that is filled on leaving."""
    said: list[str] = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=True) as logs:
            yield said
            said += [text.strip() for _, _, text in logs if _EARLY.search(text)]
    finally:
        av.logging.set_level(level)
