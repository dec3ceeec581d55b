"""The clips of a split as one sequence, whose shards' indices are opened when a clip is asked for.

dataset.json names the binary index of each shard with its clips and sha256, and the kinds of clips
that there are: so a run starts without opening any. A shard without one has the JSON index of
version 0.1.0, which is read at once.
"""

from __future__ import annotations

import errno
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate, groupby
from typing import Any, SupportsIndex, overload

from sdevid.data.columns import Columns, columns_name
from sdevid.data.entry import ClipEntry, DamagedClipError, Kind, Member
from sdevid.data.folder import Folder
from sdevid.data.json_file import checked, read_json
from sdevid.data.schema import MOST_BYTES, ClipFields, IndexFields
from sdevid.data.shard_file import index_name
from sdevid.errors import UserError

_AT_ONCE = 16  # JSON indices read together from a remote folder
_OPEN = 256  # binary indices kept open; each holds a file
_KEPT = 4_096  # entries


@dataclass(frozen=True)
class Part:
    """The index of one shard."""

    shard: str  # the tar's name
    size: int  # clips
    open: Callable[[], Sequence[ClipEntry]]
    sha256: str | None = None  # of a binary index


class ClipTable(Sequence[ClipEntry]):
    """The clips of a split, in the order in which they were written. Safe from several threads.

    `clips[i]` raises DamagedClipError where the index of that clip's shard does not hold it.
    """

    def __init__(
        self,
        location: str,
        parts: Sequence[Part],
        kinds: Iterable[Kind] = (),
        members: Mapping[str, int] | None = None,
    ) -> None:
        self.parts, self._location = parts, location
        self._kinds, self._members = frozenset(kinds), members
        self._first = [0, *accumulate(part.size for part in parts)]
        self._opened = lru_cache(_OPEN)(lambda number: self.parts[number].open())
        self._entry = lru_cache(_KEPT)(self._read)

    @classmethod
    def of(cls, location: str, clips: Iterable[ClipEntry]) -> ClipTable:
        """Build a table from entries in memory."""
        shards = [(shard, list(those)) for shard, those in groupby(clips, lambda c: c.shard)]
        return cls(location, [Part(s, len(those), partial(list, those)) for s, those in shards])

    def __len__(self) -> int:
        return self._first[-1]

    @overload
    def __getitem__(self, i: SupportsIndex) -> ClipEntry: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[ClipEntry]: ...
    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, int) and 0 <= i < self._first[-1]:
            return self._entry(i)
        chosen = range(len(self))[i]
        if isinstance(chosen, range):
            return [self._entry(place) for place in chosen]
        return self._entry(chosen)

    def _read(self, place: int) -> ClipEntry:
        number = bisect_right(self._first, place) - 1
        row, shard = place - self._first[number], self.parts[number].shard
        try:
            return self._opened(number)[row]
        except FileNotFoundError:
            raise DamagedClipError(self._location, shard, str(row), "its index is gone") from None
        except ValueError as error:
            raise DamagedClipError(self._location, shard, str(row), str(error)) from error

    @property
    def sizes(self) -> list[int]:
        """Clips of each shard."""
        return [part.size for part in self.parts]

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """The different kinds of clips that there are."""
        return self._kinds or frozenset(clip.kind for clip in self)

    def clips_with(self, extension: str) -> int:
        """Count the clips that have a member with this extension."""
        if self._members is not None:
            return self._members.get(extension, 0)
        return sum(extension in clip.members for clip in self)

    def clip_ranges(self, shard: str) -> list[range]:
        """Locate the clips of a shard in this table."""
        named = [number for number, part in enumerate(self.parts) if part.shard == shard]
        return [range(self._first[number], self._first[number + 1]) for number in named]


def read_split(folder: Folder, split: Mapping[str, Any]) -> ClipTable:
    """Open the table of the clips of a split, as dataset.json describes it.

    Raises UserError where an index does not read.
    """
    named: Mapping[str, Mapping[str, Any]] = split.get("indices") or {}
    kinds = kinds_of(split)
    if folder.steady and named:
        there = set(folder.names() or ())
        missing = [shard for shard in split["shards"] if shard in named]
        missing = [name for name in map(columns_name, missing) if name not in there]
        if missing:
            raise _missing(folder, missing[0])

    def part(shard: str) -> Part:
        if shard not in named:
            clips = read_index(folder, shard)
            return Part(shard, len(clips), lambda: clips)
        entry = named[shard]
        opener = partial(open_columns, folder, shard, entry, kinds)
        return Part(shard, entry["clips"], opener, entry["sha256"])

    with ThreadPoolExecutor(1 if folder.steady else _AT_ONCE) as pool:
        parts = list(pool.map(part, split["shards"]))
    if any(part.sha256 is None for part in parts):
        return ClipTable(folder.location, parts)
    return ClipTable(folder.location, parts, kinds, split.get("members"))


def kinds_of(split: Mapping[str, Any]) -> frozenset[Kind]:
    """Read the kinds of clips of a split from its entry in dataset.json."""
    return frozenset(Kind(*(kind[f] for f in Kind._fields)) for kind in split.get("kinds") or ())


def open_columns(
    folder: Folder, shard: str, entry: Mapping[str, Any], kinds: frozenset[Kind]
) -> Columns:
    """Open the binary index of a shard and compare it with dataset.json.

    Raises ValueError where it differs, FileNotFoundError where it is missing, UserError where it
    cannot be read.
    """
    name = columns_name(shard)
    try:
        content = folder.mapped(name, MOST_BYTES["index"])
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno != errno.EIO:
            raise UserError(f"index {folder.location}/{name} cannot be read: {error}") from error
        raise ValueError(f"the disk does not give {name} ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{name} does not read: {error}") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name} has another sha256 than dataset.json says; copy both again")
    try:
        columns = Columns(shard, content)
    except ValueError as error:
        raise ValueError(f"{name} does not read: {error}") from error
    if len(columns) != entry["clips"]:
        raise ValueError(f"{name} has {len(columns)} clips, but dataset.json says {entry['clips']}")
    other = columns.kinds - kinds
    if other:
        raise ValueError(
            f"{name} has clips of {min(other)}, a kind that dataset.json does not name"
        )
    return columns


def read_index(folder: Folder, shard: str) -> list[ClipEntry]:
    """Read the clips of the tar `shard` from its JSON index. UserError where it does not read."""
    name = index_name(shard)
    try:
        content = read_json(folder, name)
    except FileNotFoundError as error:
        raise _missing(folder, name) from error
    fields = checked(IndexFields, content, f"index {folder.location}/{name}")
    return [_entry(shard, clip) for clip in fields.clips]


def _missing(folder: Folder, name: str) -> UserError:
    return UserError(
        f"index {folder.location}/{name} does not read (it is missing); copy it again or make "
        "it anew"
    )


def _entry(shard: str, clip: ClipFields) -> ClipEntry:
    members = {
        name: Member(member.offset, member.size, member.sha256, member.xxh3)
        for name, member in clip.members.items()
    }
    shape = clip.num_frames, clip.fps, clip.height, clip.width, clip.channels
    return ClipEntry(shard, clip.key, clip.source, clip.label, *shape, members)
