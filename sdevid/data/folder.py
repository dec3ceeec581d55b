"""Where shards lie: a folder of this machine, or one that is reached by a URL."""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from sdevid.config import Config
from sdevid.errors import UserError

_OPEN = 64  # files kept open


@dataclass(frozen=True)
class Access:
    """How a remote folder is read."""

    timeout: float = 60.0  # seconds without an answer
    cache: Path | None = None  # node-local folder that keeps what was read
    cache_bytes: int = 64 * 2**30

    @classmethod
    def of(cls, config: Config) -> Access:
        """Take the access options from the config."""
        return cls(config.data_timeout, config.data_cache, int(config.data_cache_gib * 2**30))


class Folder(Protocol):
    """Files of one folder, read by name. Safe from several threads.

    What is not there raises FileNotFoundError, what is no regular file of the folder ValueError.
    Reads past the end of a file come back short.
    """

    @property
    def location(self) -> str:
        """Path or URL."""
        ...

    @property
    def steady(self) -> bool:
        """Whether bytes that were checked once need no second check."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read `size` bytes of a file from `offset` on."""
        ...

    def read_into(self, name: str, offset: int, *targets: bytearray | memoryview) -> int:
        """Fill one target after the other with the bytes from `offset` on; return how many."""
        ...

    def forget(self, name: str, offset: int, size: int) -> bool:
        """Drop kept copies of bytes that proved wrong; tell whether there were any."""
        ...

    def whole(self, name: str, limit: int) -> bytes:
        """Read a whole file, never from a cache. ValueError if it has more than `limit` bytes."""
        ...

    def mapped(self, name: str, limit: int) -> memoryview:
        """Read a whole file, a local one as memory pages shared between processes.

        Like `whole`, raises ValueError past `limit` bytes.
        """
        ...

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        ...

    def stamp(self, name: str) -> tuple[int, int, int] | None:
        """Return inode, size and time, which change when an open file is replaced.

        None where not steady.
        """
        ...

    def names(self) -> list[str] | None:
        """List the files; None where the folder cannot be listed, as on the web."""
        ...

    def close(self) -> None:
        """Close what reads have opened."""
        ...


def copy_into(
    folder: Folder, name: str, offset: int, targets: Sequence[bytearray | memoryview]
) -> int:
    """Fill the targets as `Folder.read_into` does, by a copy of what `Folder.read` gives."""
    rooms = [memoryview(target).cast("B") for target in targets]
    content, place = folder.read(name, offset, sum(map(len, rooms))), 0
    for room in rooms:
        part = content[place : place + len(room)]
        room[: len(part)] = part
        place += len(part)
    return len(content)


class LocalFolder:
    """A folder of this machine's file systems."""

    steady = True

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(f"shard folder {path} does not exist; sdevid shards makes one")
        self.path, self.location = path, str(path)
        self._handle = lru_cache(_OPEN)(self._open)

    def read(self, name: str, offset: int, size: int) -> bytes:
        handle = self._handle(name)  # held until the read is done
        return os.pread(handle.number, min(size, max(handle.size - offset, 0)), offset)

    def read_into(self, name: str, offset: int, *targets: bytearray | memoryview) -> int:
        handle = self._handle(name)
        return os.preadv(handle.number, targets, offset)

    def forget(self, name: str, offset: int, size: int) -> bool:  # noqa: ARG002
        return False

    def whole(self, name: str, limit: int) -> bytes:
        handle = self._bounded(name, limit)
        return os.pread(handle.number, handle.size, 0)

    def mapped(self, name: str, limit: int) -> memoryview:
        handle = self._bounded(name, limit)
        return memoryview(mmap.mmap(handle.number, handle.size, access=mmap.ACCESS_READ))

    def size(self, name: str) -> int:
        return self._open(name).size

    def stamp(self, name: str) -> tuple[int, int, int]:
        handle = self._handle(name)  # held, else another thread's `close` may close the file first
        state = os.fstat(handle.number)
        return state.st_ino, state.st_size, state.st_mtime_ns

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())

    def close(self) -> None:
        self._handle.cache_clear()

    def _bounded(self, name: str, limit: int) -> _Handle:
        handle = self._open(name)
        if handle.size > limit:
            raise ValueError(f"it has {handle.size:,} bytes, more than {limit:,}")
        return handle

    def _open(self, name: str) -> _Handle:
        path = self.path / name
        if name != path.name:
            raise ValueError(f"{name!r} is not the name of a file")
        if path.is_symlink() and path.exists():
            target = path.resolve()
            if not target.is_relative_to(self.path.resolve()):
                raise ValueError(
                    f"it is a link to {target}, outside of the folder; copy it here, or let the "
                    "whole folder be a link"
                )
        return _Handle(path)


class _Handle:
    """An open file, closed once neither the folder nor a read that goes on refers to it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
        state = os.fstat(self.number)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is not a regular file")
        self.size = state.st_size

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class FolderFile(io.RawIOBase):
    """One file of a folder as a stream that seeks."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._place = folder, name, 0
        self._size = folder.size(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        wanted = min(len(view), max(self._size - self._place, 0))
        content = self._folder.read(self._name, self._place, wanted) if wanted else b""
        view[: len(content)] = content
        self._place += len(content)
        return len(content)
