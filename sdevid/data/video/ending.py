"""Whether a file ends where its own structure does, in formats whose header states no length."""

from __future__ import annotations

from pathlib import Path

_TAIL = 2**17  # bytes; more than an Ogg page
_TS_PACKETS = {188: 0, 192: 4, 204: 0}  # bytes of a packet, and where its sync byte stands
_SYNC = 0x47
_OPENED = (0x18538067, 0x1F43B675)  # Segment and Cluster


def ending_fault(path: Path, kind: str) -> str | None:
    """Say why the file of FFmpeg's format `kind` ends too early, or None."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4 * 204)
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
    if kind == "matroska,webm":
        return _matroska(path, size)
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


def _matroska(path: Path, size: int) -> str | None:
    """Walk over the elements (RFC 8794): each must end within the file."""
    with path.open("rb") as file:
        place = 0
        while place < size:
            file.seek(place)
            element = _element(file.read(16))
            if element is None:
                return "ends within an element of its Matroska stream"
            kind, header, length = element
            place += header
            if length is None or kind in _OPENED:
                continue  # its children follow
            place += length
    return None if place == size else "ends within an element of its Matroska stream"


def _element(head: bytes) -> tuple[int, int, int | None] | None:
    """Parse an element's ID, header size and content size (None: unknown); None if cut off."""
    if not head or not head[0]:
        return None
    kind_bytes = 9 - head[0].bit_length()
    if len(head) <= kind_bytes or not head[kind_bytes]:
        return None
    size_bytes = 9 - head[kind_bytes].bit_length()
    value = head[kind_bytes : kind_bytes + size_bytes]
    if kind_bytes > 4 or len(value) < size_bytes:
        return None
    bits = 7 * size_bytes
    length = int.from_bytes(value, "big") & (2**bits - 1)
    known = None if length == 2**bits - 1 else length
    return int.from_bytes(head[:kind_bytes], "big"), kind_bytes + size_bytes, known
