"""Indices that `sdevid shards index` keeps on this machine for tars behind a URL, or in a list."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sdevid.data.folder import Folder, LocalFolder

DATASET = "dataset.json"


def cache_of(location: str) -> Path:
    """Name the folder that holds the index of the tars at `location`, a URL or brace list.

    It lies in the user's cache (XDG_CACHE_HOME), which the nodes of a cluster usually share.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "sdevid" / "indices" / hashlib.sha256(location.rstrip("/").encode()).hexdigest()


def indexed(location: str, tars: Folder) -> Folder | None:
    """Open the tars with their index in the cache; None where there is none."""
    kept = cache_of(location)
    return IndexedFolder(LocalFolder(kept), tars) if (kept / DATASET).is_file() else None


class IndexedFolder:
    """The files of `index`, and the tars of another folder."""

    steady = False

    def __init__(self, index: Folder, tars: Folder) -> None:
        self._index, self._tars = index, tars
        self._own = frozenset(index.names() or ())
        self.location = tars.location

    def _of(self, name: str) -> Folder:
        return self._index if name in self._own else self._tars

    def read(self, name: str, offset: int, size: int) -> bytes:
        return self._of(name).read(name, offset, size)

    def read_into(self, name: str, offset: int, *targets: bytearray | memoryview) -> int:
        return self._of(name).read_into(name, offset, *targets)

    def forget(self, name: str, offset: int, size: int) -> bool:
        return self._of(name).forget(name, offset, size)

    def whole(self, name: str, limit: int) -> bytes:
        return self._of(name).whole(name, limit)

    def mapped(self, name: str, limit: int) -> memoryview:
        return self._of(name).mapped(name, limit)

    def size(self, name: str) -> int:
        return self._of(name).size(name)

    def stamp(self, name: str) -> tuple[int, int, int] | None:
        return self._of(name).stamp(name)

    def names(self) -> list[str] | None:
        listed = self._tars.names()
        return None if listed is None else sorted(self._own.union(listed))

    def close(self) -> None:
        self._index.close()
        self._tars.close()
