"""The binary index of a shard: numpy arrays one after the other in a file that is mapped.

`train-000000.index.npy` holds, in this order and each as `numpy.save` writes it: the tar's bytes;
a column for each field of the clips; one for each field of their members; and the texts, which
clips and members name by number. A row is made into a ClipEntry when it is asked for. The file may
come from strangers: its arrays must have the types and lengths that belong together, every number
is held to the range of the JSON index, and nothing in it is ever run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np

from sdevid.data.entry import KEY_FORM, PAYLOADS, ClipEntry, Kind, Member
from sdevid.data.npy import npy_at
from sdevid.data.schema import LIMITS, MOST_CLIP_BYTES, MOST_TAR, MOST_TEXT

_CLIP = {"num_frames": "<i4", "fps": "<f8", "height": "<i4", "width": "<i4", "channels": "<i4"}
_CLIP_TEXTS = {"key": "<u4", "source": "<u4", "label": "<u4"}  # numbers of texts
_CLIP_END = {"members_end": "<u4"}  # its members are those from the former clip's end to this
_MEMBER = {"extension": "<u4", "offset": "<i8", "size": "<i8", "sha256": "|u1", "xxh3": "|u1"}
_TEXT = {"text_end": "<i8", "text": "|u1"}  # where each ends in the UTF-8 that follows
_COLUMNS = {"tar_size": "<i8"} | _CLIP | _CLIP_TEXTS | _CLIP_END | _MEMBER | _TEXT
_DIGEST_BYTES = {"sha256": 32, "xxh3": 16}
_NO_XXH3 = 32 * "0"  # of members that were indexed before 0.2.0


def columns_name(shard: str) -> str:
    """Name the binary index beside the tar `shard`."""
    return shard.removesuffix(".tar") + ".index.npy"


def encode_columns(clips: Sequence[ClipEntry], tar_size: int) -> bytes:
    """Encode the binary index of a tar's clips; the same clips give the same bytes."""
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    columns: dict[str, Any] = {"tar_size": [tar_size]}
    columns |= {name: [getattr(clip, name) for clip in clips] for name in _CLIP}
    columns |= {name: [number(getattr(clip, name)) for clip in clips] for name in _CLIP_TEXTS}
    columns["members_end"] = np.cumsum([len(clip.members) for clip in clips])
    members = [(name, member) for clip in clips for name, member in clip.members.items()]
    columns["extension"] = [number(name) for name, _ in members]
    columns |= {f: [getattr(member, f) for _, member in members] for f in ("offset", "size")}
    sha256 = b"".join(bytes.fromhex(member.sha256) for _, member in members)
    xxh3 = b"".join(bytes.fromhex(member.xxh3 or _NO_XXH3) for _, member in members)
    columns["sha256"] = np.frombuffer(sha256, np.uint8).reshape(-1, 32)
    columns["xxh3"] = np.frombuffer(xxh3, np.uint8).reshape(-1, 16)
    encoded = [text.encode() for text in texts]
    columns["text_end"] = np.cumsum([len(text) for text in encoded])
    columns["text"] = np.frombuffer(b"".join(encoded), np.uint8)
    file = io.BytesIO()
    for name, dtype in _COLUMNS.items():
        np.save(file, np.asarray(columns[name], dtype), allow_pickle=False)
    return file.getvalue()


class Columns(Sequence[ClipEntry]):
    """The clips of one shard, in a buffer that holds its binary index.

    Raises ValueError where the buffer holds anything else.
    """

    def __init__(self, shard: str, content: memoryview) -> None:
        self.shard, place = shard, 0
        self._column: dict[str, np.ndarray[Any, Any]] = {}
        for name, dtype in _COLUMNS.items():
            values, place = npy_at(content, place)
            if values.dtype != np.dtype(dtype):
                raise ValueError(f"column {name} holds {values.dtype}, not {dtype}")
            self._column[name] = values
        if place != len(content):
            raise ValueError(f"{len(content) - place} bytes follow its last column")
        self._check_lengths()
        self._cell: dict[str, Any] = {name: _cells(v) for name, v in self._column.items()}
        self._check_clips()
        self._check_members()

    def __len__(self) -> int:
        return len(self._column["num_frames"])

    @overload
    def __getitem__(self, row: SupportsIndex) -> ClipEntry: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[ClipEntry]: ...
    def __getitem__(self, row: Any) -> Any:
        """Build the entry of a row, or a list of a slice. ValueError for a text out of form."""
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        row, cell = range(len(self))[row], self._cell
        key, source, label = [self._text(cell[name][row]) for name in _CLIP_TEXTS]
        if KEY_FORM.fullmatch(key) is None:
            raise ValueError(f"the key {key!r} of clip {row} is out of form")
        ends = cell["members_end"]
        members = dict(map(self._member, range(ends[row - 1] if row else 0, ends[row])))
        kind = Kind(*[cell[name][row] for name in _CLIP])
        return ClipEntry(self.shard, key, source, label, *kind, members)

    @property
    def tar_size(self) -> int:
        """Size of the tar in bytes."""
        return int(self._column["tar_size"][0])

    @cached_property
    def kinds(self) -> set[Kind]:
        """The different kinds of its clips."""
        table = np.column_stack([self._column[name].astype(np.float64) for name in _CLIP])
        differ = np.flatnonzero((table[1:] != table[:-1]).any(axis=1)) + 1
        rows = table[[0, *differ]].tolist() if len(table) else []
        return {Kind(int(row[0]), row[1], *map(int, row[2:])) for row in rows}

    def _text(self, number: int) -> str:
        ends = self._cell["text_end"]
        return str(self._cell["text"][ends[number - 1] if number else 0 : ends[number]], "utf-8")

    def _member(self, number: int) -> tuple[str, Member]:
        cell = self._cell
        sha256 = cell["sha256"][32 * number : 32 * number + 32].hex()
        xxh3 = cell["xxh3"][16 * number : 16 * number + 16].hex()
        place = cell["offset"][number], cell["size"][number]
        extension = self._text(cell["extension"][number])
        return extension, Member(*place, sha256, None if xxh3 == _NO_XXH3 else xxh3)

    def _check_lengths(self) -> None:
        """Raise ValueError where columns of one table differ in length."""
        lengths = {name: values.shape[:1] for name, values in self._column.items()}
        clips = lengths["num_frames"]
        same = [(_CLIP | _CLIP_TEXTS | _CLIP_END, clips), (_MEMBER, lengths["offset"])]
        for table, length in [*same, ({"tar_size": ""}, (1,)), (_TEXT, None)]:
            for name in table:
                rest = (_DIGEST_BYTES[name],) if name in _DIGEST_BYTES else ()
                wanted = (length or lengths[name]) + rest
                if self._column[name].shape != wanted or not wanted:
                    shape = self._column[name].shape
                    raise ValueError(f"column {name} has the shape {shape}, not {wanted}")

    def _check_clips(self) -> None:
        """Raise ValueError where a number of a clip is out of its range."""
        column = self._column
        for name in _CLIP:
            low, high = LIMITS[name]
            within = (column[name] > 0) & (column[name] >= low) & (column[name] <= high)
            _all(within, f"column {name}: clip {{}} is out of {low:g} to {high:g}")
        pixels = [column[name].astype(np.float64) for name in ("height", "width", "channels")]
        size = np.prod(pixels, axis=0) * column["num_frames"]
        _all(size <= MOST_CLIP_BYTES, f"clip {{}} has more than {MOST_CLIP_BYTES >> 30} GiB")
        texts = len(column["text_end"])
        for name in (*_CLIP_TEXTS, "extension"):
            _all(column[name] < texts, f"column {name}: row {{}} names none of {texts} texts")
        lengths = np.diff(column["text_end"], prepend=0)
        _all((lengths >= 0) & (lengths <= MOST_TEXT), "text {} ends out of place")
        if texts and column["text_end"][-1] != len(column["text"]):
            raise ValueError("the texts do not end with the last of them")

    def _check_members(self) -> None:
        """Raise ValueError where a member lies outside the tar, or a clip has not one payload."""
        column = self._column
        offset, size = column["offset"], column["size"]
        if not 0 <= self.tar_size <= MOST_TAR:
            raise ValueError(f"a tar of {self.tar_size} bytes cannot be")
        inside = (offset >= 0) & (size >= 0) & (size <= self.tar_size)
        inside &= offset <= self.tar_size - size
        _all(inside, f"member {{}} lies beyond the tar's {self.tar_size} bytes")
        ends = column["members_end"].astype(np.int64)
        rising = np.diff(ends, prepend=0) > 0
        _all(rising & (ends <= len(offset)), "the members of clip {} end out of place")
        names = np.unique(column["extension"]).tolist()
        payloads = [number for number in names if self._text(number) in PAYLOADS]
        count = np.concatenate([[0], np.cumsum(np.isin(column["extension"], payloads))])
        each = np.diff(count[ends], prepend=0)
        _all(each == 1, f"the members of clip {{}} must name one of {', '.join(PAYLOADS)}")


def _cells(values: np.ndarray[Any, Any]) -> memoryview:
    """View the values as a flat memoryview, whose items read in a third of numpy's time."""
    kinds: dict[str, Any] = {"i4": "i", "i8": "q", "u4": "I", "u1": "B", "f8": "d"}
    cells: memoryview = values.reshape(-1).view(np.uint8).data.cast(kinds[values.dtype.str[1:]])
    return cells


def _all(right: np.ndarray[Any, Any], message: str) -> None:
    """Raise ValueError with the number of the first row that is not right."""
    if not right.all():
        raise ValueError(message.format(int(np.argmin(right))))
