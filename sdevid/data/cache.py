"""A node's copy of what was read of remote shards: blocks on a local disk, the oldest evicted.

Many processes share it. A block is written aside and renamed, by one process while the others wait
for it; a crash leaves no lock and nothing that is trusted: the bytes of a clip are compared with
the index at every read, and blocks that prove wrong are fetched anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from sdevid.data.folder import Folder, copy_into
from sdevid.errors import UserError

BLOCK = 4 * 2**20  # bytes
_LOCKS = 256  # files that stand for all blocks
_KEPT_AFTER = 0.9  # of the cap, after an eviction


class BlockCache:
    """Blocks of files in `path`, at most `capacity` bytes of them."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.path, self.capacity = path, capacity
        if capacity < 2 * BLOCK:
            raise UserError(
                f"data_cache_gib is {capacity / 2**30:g}, but two blocks of {BLOCK >> 20} MiB must "
                "fit; set it to 0.01 or more"
            )
        try:
            (path / "locks").mkdir(parents=True, exist_ok=True)
            (path / "blocks").mkdir(exist_ok=True)
            with _locked(path / "locks" / "total"):
                pass
        except OSError as error:
            raise UserError(
                f"data_cache is {path}, but it cannot be written ({error.strerror}); give a folder "
                "on a disk of this node"
            ) from error

    def read_slice(self, file: str, number: int, part: slice, fetch: Callable[[], bytes]) -> bytes:
        """Read a part of a block; a block that is not kept is fetched first.

        `file` is any unique name.
        """
        path = self.block_path(file, number)
        content = _kept(path, part)
        if content is not None:
            return content
        stripe = int(hashlib.sha256(str(path).encode()).hexdigest(), 16) % _LOCKS
        with _locked(self.path / "locks" / f"{stripe:03d}"):
            content = _kept(path, part)  # another process may have been first
            if content is None:
                whole = fetch()
                self._keep(path, whole)
                content = whole[part]
        return content

    def forget(self, file: str, number: int) -> bool:
        """Drop a block; tell whether it was kept."""
        try:
            self.block_path(file, number).unlink()
        except FileNotFoundError:
            return False
        return True

    def block_path(self, file: str, number: int) -> Path:
        """Name the file that holds block `number` of `file`."""
        folder = hashlib.sha256(file.encode()).hexdigest()[:32]
        return self.path / "blocks" / folder / str(number)

    def _keep(self, path: Path, content: bytes) -> None:
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._make_room(len(content))
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            warnings.warn(
                f"data_cache {self.path} takes no more ({error.strerror}); blocks are fetched "
                "again each time",
                stacklevel=2,
            )

    def _make_room(self, size: int) -> None:
        """Count `size` bytes as kept, and drop the least recently used ones past the cap.

        A crash in between counts too much, which the next eviction puts right.
        """
        total = self.path / "total"
        with _locked(self.path / "locks" / "total"):
            try:
                kept = int(total.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                kept = self._evict(self.capacity)
            if kept + size > self.capacity:
                kept = self._evict(int(self.capacity * _KEPT_AFTER) - size)
            total.write_text(str(kept + size), encoding="utf-8")

    def _evict(self, allowed: int) -> int:
        """Drop the oldest blocks until `allowed` bytes are left; return how many are."""
        blocks = []
        for path in (self.path / "blocks").glob("*/*"):
            with suppress(FileNotFoundError):  # forgotten by another process
                status = path.stat()
                blocks.append((status.st_mtime_ns, status.st_size, path))
        kept = sum(size for _, size, _ in blocks)
        for _, size, path in sorted(blocks):
            if kept <= allowed:
                break
            path.unlink(missing_ok=True)
            kept -= size
        return kept


class CachedFolder:
    """A remote folder whose shards are read through a cache, whole blocks at a time."""

    steady = False

    def __init__(self, remote: Folder, cache: BlockCache) -> None:
        self._remote, self._cache = remote, cache
        self.location = remote.location

    def read(self, name: str, offset: int, size: int) -> bytes:
        file = f"{self.location}/{name}"
        parts = []
        for number, part in _slices(offset, size):
            start = number * BLOCK
            fetch = partial(self._remote.read, name, start, BLOCK)
            parts.append(self._cache.read_slice(file, number, part, fetch))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, name: str, offset: int, *targets: bytearray | memoryview) -> int:
        return copy_into(self, name, offset, targets)

    def forget(self, name: str, offset: int, size: int) -> bool:
        file = f"{self.location}/{name}"
        dropped = [self._cache.forget(file, number) for number, _ in _slices(offset, size)]
        return any(dropped)

    def whole(self, name: str, limit: int) -> bytes:
        return self._remote.whole(name, limit)

    def mapped(self, name: str, limit: int) -> memoryview:
        return self._remote.mapped(name, limit)

    def size(self, name: str) -> int:
        return self._remote.size(name)

    def names(self) -> list[str] | None:
        return self._remote.names()

    def stamp(self, name: str) -> None:  # noqa: ARG002
        return None

    def close(self) -> None:
        self._remote.close()


def _slices(offset: int, size: int) -> Iterator[tuple[int, slice]]:
    """Yield the number of each block in a range of bytes, and the part of it in the range."""
    end = offset + size
    for number in range(offset // BLOCK, -(-end // BLOCK)):
        start = number * BLOCK
        yield number, slice(max(offset - start, 0), min(end - start, BLOCK))


def _kept(path: Path, part: slice) -> bytes | None:
    try:
        with path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), part.stop - part.start, part.start)
            os.utime(file.fileno())  # for the order of eviction
    except FileNotFoundError:
        return None
    return content


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock against other processes and threads; it goes with the process.

    A folder that was removed, by whoever cleans the node's disk, is made again and said so.
    """
    while True:
        try:
            file = path.open("a", encoding="utf-8")
            break
        except FileNotFoundError:
            warnings.warn(f"data_cache {path.parents[1]} was removed; made again", stacklevel=4)
            path.parent.mkdir(parents=True, exist_ok=True)
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
