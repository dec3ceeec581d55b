"""Writes a shard: a plain WebDataset tar and the indices beside it. Knows webdataset's writer.

The binary index is what is read; the same in JSON is for people, other tools and version 0.1.0.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xxhash

from sdevid.data.columns import columns_name, encode_columns
from sdevid.data.entry import ClipEntry, Member

FORMAT = 1
Hash = Literal["sha256", "xxh3"]
_TAR_BLOCK = 512
_NAMED = ("source", "label", "num_frames", "fps", "height", "width", "channels")  # of KEY.json


def index_name(shard: str) -> str:
    """Name the JSON index beside the tar `shard`."""
    return shard.removesuffix(".tar") + ".index.json"


def digest(content: bytes, kind: Hash, rest: memoryview | bytes = b"") -> str:
    """Hash a member's bytes, as hex: xxh3_128 takes a twentieth of sha256's time.

    `rest` are the bytes that follow `content`.
    """
    hasher = xxhash.xxh3_128(content) if kind == "xxh3" else hashlib.sha256(content)
    hasher.update(rest)
    return hasher.hexdigest()


def member_at(offset: int, content: bytes) -> Member:
    """Build the index entry of a member whose bytes begin at `offset`."""
    return Member(offset, len(content), digest(content, "sha256"), digest(content, "xxh3"))


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write `content` as JSON beside `path` and rename it: the file is whole or missing."""
    write_whole(path, (json.dumps(content, indent=indent, sort_keys=True) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and rename it: the file is whole or missing."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_indices(folder: Path, shard: str, clips: Sequence[ClipEntry], size: int) -> None:
    """Put the indices of a tar of `size` bytes into place."""
    index = {"format": FORMAT, "shard": shard, "size": size}
    write_json(folder / index_name(shard), index | {"clips": [clip.as_json() for clip in clips]})
    write_whole(folder / columns_name(shard), encode_columns(clips, size))


class ShardFile:
    """One tar on its way: clips are added, then `close` puts tar and index in place."""

    def __init__(self, folder: Path, shard: str) -> None:
        import webdataset

        self.path = folder / shard
        self._aside = folder / (shard + ".part")
        self._stream = self._aside.open("wb")
        self._tar = webdataset.TarWriter(
            self._stream, encoder=False, mtime=0, user="", group="", compress=False
        )
        self._position = 0
        self._clips: list[ClipEntry] = []

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, key: str, meta: dict[str, Any], members: Mapping[str, bytes]) -> None:
        """Append the clip `key`: its `members` by extension, and `meta`, which becomes KEY.json."""
        text = json.dumps(meta, sort_keys=True, ensure_ascii=False)
        members = {**members, "json": text.encode()}
        self._tar.write({"__key__": key, **members})
        named = {name: meta[name] for name in _NAMED}
        self._clips.append(ClipEntry(self.path.name, key, **named, members=self._entries(members)))

    def _entries(self, members: dict[str, bytes]) -> dict[str, Member]:
        entries: dict[str, Member] = {}
        for extension, content in sorted(members.items()):  # the order in which TarWriter writes
            offset = self._position + _TAR_BLOCK
            entries[extension] = member_at(offset, content)
            self._position = offset + -(-len(content) // _TAR_BLOCK) * _TAR_BLOCK
        return entries

    def close(self) -> None:
        """Finish the tar and rename it and its index into place."""
        self._tar.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        size = self._aside.stat().st_size
        self._aside.replace(self.path)
        write_indices(self.path.parent, self.path.name, self._clips, size)

    def discard(self) -> None:
        """Drop the unfinished tar."""
        with contextlib.suppress(OSError):  # a full disk, which is why it is dropped
            self._tar.close()
        with contextlib.suppress(OSError):
            self._stream.close()
        self._aside.unlink(missing_ok=True)
