"""Writes a shard: a plain WebDataset tar and the index beside it. Knows webdataset's writer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import xxhash

FORMAT = 1
Hash = Literal["sha256", "xxh3"]
_TAR_BLOCK = 512


def index_name(shard: str) -> str:
    """The name of the index beside the tar `shard`."""
    return shard.removesuffix(".tar") + ".index.json"


def digest(content: bytes, kind: Hash) -> str:
    """The hash of a member's bytes: xxh3_128 takes a twentieth of sha256's time."""
    if kind == "xxh3":
        return xxhash.xxh3_128_hexdigest(content)
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """`content` as JSON, written aside and renamed: whole or not there."""
    aside = path.with_name(path.name + ".part")
    with aside.open("w") as file:
        json.dump(content, file, indent=indent, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


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
        self._clips: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, key: str, meta: dict[str, Any], members: Mapping[str, bytes]) -> None:
        """Append the clip `key`: its `members` by extension, and `meta`, which becomes KEY.json."""
        said = json.dumps(meta, sort_keys=True, ensure_ascii=False)
        members = {**members, "json": said.encode()}
        self._tar.write({"__key__": key, **members})
        named = {name: meta[name] for name in ("source", "label", "num_frames", "fps")}
        named |= {name: meta[name] for name in ("height", "width", "channels")}
        self._clips.append({"key": key, **named, "members": self._places(members)})

    def _places(self, members: dict[str, bytes]) -> dict[str, dict[str, Any]]:
        places: dict[str, dict[str, Any]] = {}
        for extension, content in sorted(members.items()):  # the order in which TarWriter writes
            offset = self._position + _TAR_BLOCK
            places[extension] = {
                "offset": offset,
                "size": len(content),
                "sha256": digest(content, "sha256"),
                "xxh3": digest(content, "xxh3"),
            }
            self._position = offset + -(-len(content) // _TAR_BLOCK) * _TAR_BLOCK
        return places

    def close(self) -> None:
        """Finish the tar and rename it and its index into place."""
        self._tar.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        index = {
            "format": FORMAT,
            "shard": self.path.name,
            "size": self._aside.stat().st_size,
            "clips": self._clips,
        }
        self._aside.replace(self.path)
        write_json(self.path.with_name(index_name(self.path.name)), index)

    def discard(self) -> None:
        """Drop the unfinished tar."""
        with contextlib.suppress(OSError):  # a full disk, which is why it is dropped
            self._tar.close()
        with contextlib.suppress(OSError):
            self._stream.close()
        self._aside.unlink(missing_ok=True)
