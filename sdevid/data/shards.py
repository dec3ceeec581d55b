"""Shards: plain WebDataset tars, an index beside each, and one dataset.json for the folder.

A clip is two members, KEY.json and one payload; KEY.text.npy and KEY.latent.npy may join them. An
index (train-000000.index.npy, `columns.py`) tells where each clip's members lie: it is read by
offset.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdevid.data import embedding, latents, mask, transforms
from sdevid.data.entry import ClipEntry, DamagedClipError, Member
from sdevid.data.folder import Access, Folder
from sdevid.data.index import ClipTable, read_split
from sdevid.data.json_file import checked, read_json
from sdevid.data.mask import MASK, Mask
from sdevid.data.open import open_folder
from sdevid.data.payload import ClipVideo, Shape, decode, npy_header
from sdevid.data.schema import METADATA, MOST_BYTES, MOST_TOKENS, DatasetFields, parse_metadata
from sdevid.data.shard_file import FORMAT, Hash, digest
from sdevid.data.spec import words
from sdevid.data.transforms import Transform
from sdevid.errors import UserError
from sdevid.types import Embedding

_RIGHT, _PLAIN = 1, 2  # what is known of a clip: its sha256 is right; and its npy is as we write it
_ALWAYS = (*METADATA, MASK)  # what is read beside a clip's frames, where it is there
_HEADERS = 2**20  # bytes of a container beside the pixels
_APART = 2**20  # bytes between the members of one clip
_MAKE = "sdevid shards makes one"


@dataclass(frozen=True)
class Clip:
    """One clip as it was cut: frames of the data set's type and the fields of its KEY.json."""

    key: str
    video: ClipVideo
    meta: dict[str, Any]
    mask: Mask | None = None  # of what was not observed

    @property
    def observed(self) -> np.ndarray[Any, Any]:
        """The video as numbers, NaN where nothing was observed."""
        return self.video if self.mask is None else np.where(self.mask, np.nan, self.video)


class Beside(NamedTuple):
    """What lies beside the video of a clip."""

    meta: dict[str, Any]  # of KEY.json
    caption: str  # what the model is told of it; of several captions, the one drawn
    embedding: Embedding | None  # of that caption, where the index reads them
    mask: Mask | None = None  # of the whole clip


class _Parts(NamedTuple):
    """What is read of a clip: the member that holds its frames, and what lies beside it."""

    entry: ClipEntry
    payload: str  # the member of the frames
    shape: Shape  # of all its frames
    beside: tuple[str, ...]


@dataclass
class ShardIndex:
    """The clips of one split, in the order in which they were written; reads any of them.

    Bytes are compared with the index's xxh3, or sha256 of older ones: at a clip's first read in
    this process on a local disk, at each read of a remote folder. What was found damaged stays so
    for the process. Safe from several threads.
    """

    folder: Folder
    split: str
    dataset: dict[str, Any]  # dataset.json; drawn data sets have "truth"
    clips: ClipTable
    embedded: bool = False  # whether text embeddings are read too; set before the first read
    encoded: bool = False  # whether a clip's latents are read for its frames; set likewise
    damage: dict[int, str] = field(default_factory=dict, repr=False)
    _known: bytearray = field(init=False, repr=False)  # _RIGHT or _PLAIN, once read
    _stamps: dict[str, tuple[int, int, int]] = field(default_factory=dict, repr=False)  # by shard

    def __post_init__(self) -> None:
        self._known = bytearray(len(self.clips))

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def shard_sizes(self) -> list[int]:
        """Clips of each shard."""
        return self.clips.sizes

    @cached_property
    def dtype(self) -> str:
        """Type in which the frames, or their latents, are stored."""
        return latents.DTYPE if self.encoded else str(self.dataset.get("dtype", "uint8"))

    @cached_property
    def masked(self) -> bool:
        """Whether there are clips of which something was not observed."""
        return not self.encoded and self.clips.clips_with(MASK) > 0

    @cached_property
    def transform(self) -> Transform | None:
        """Transform from stored values to a model's; None for uint8 video and latents."""
        return None if self.encoded else transforms.of_dataset(self.dataset)

    @cached_property
    def longest(self) -> int:
        """The most frames of a clip."""
        return max(kind.num_frames for kind in self.clips.kinds)

    def read(self, i: int) -> Clip:
        """Read the whole clip `i`. DamagedClipError where its shard does not hold it."""
        entry = self.clips[i]
        video = np.empty(self.stored(entry)[1], self.dtype)
        beside = self.read_into(i, 0, video)
        return Clip(entry.key, video, beside.meta, beside.mask)

    def stored(self, entry: ClipEntry) -> tuple[str, Shape]:
        """Return the member that holds a clip's frames, and its (time, rows, columns, values)."""
        if self.encoded:
            return latents.LATENT, latents.shape(entry, self.dataset["autoencoder"])
        return entry.extension, entry.shape

    def read_into(self, i: int, first: int, video: ClipVideo, draw: float = 0.0) -> Beside:
        """Write the frames of clip `i` from `first` on into `video`; return what lies beside them.

        Of several captions, `draw` in [0, 1) picks one; 0 is the first.
        DamagedClipError where the shard does not hold it, UserError where it cannot be read.
        """
        entry = self.clips[i]
        if (reason := self.damage.get(i)) is None:
            try:
                return self._load(i, entry, first, video, draw)
            except FileNotFoundError:
                reason = "the shard is missing"
            except ValueError as error:
                reason = str(error)
            except UserError:
                raise
            except OSError as error:
                if error.errno != errno.EIO:
                    place = f"{self.folder.location}/{entry.shard}"
                    raise UserError(f"shard {place} cannot be read: {error}") from error
                reason = f"the disk does not give it ({error.strerror})"
            except Exception as error:  # whatever a decoder makes of bytes of any origin
                reason = f"it does not read ({type(error).__name__}: {error})"
        raise self.damaged(i, reason)

    def damaged(self, i: int, reason: str) -> DamagedClipError:
        """Remember that clip `i` is damaged; build the error that says so."""
        self.damage[i], entry = reason, self.clips[i]
        return DamagedClipError(self.folder.location, entry.shard, entry.key, reason)

    def read_member(self, entry: ClipEntry, extension: str) -> bytes:
        """Read the bytes of one member, unchecked. ValueError where the tar ends before them."""
        member = entry.members[extension]
        content = self.folder.read(entry.shard, member.offset, member.size)
        if missing := member.size - len(content):
            raise ValueError(f"the tar ends {missing} bytes too early")
        return content

    def close(self) -> None:
        """Close the tars that reads have opened."""
        self.folder.close()

    def _load(self, i: int, entry: ClipEntry, first: int, video: ClipVideo, draw: float) -> Beside:
        beside = tuple(name for name in _ALWAYS if name in entry.members)
        beside += (embedding.member(draw, entry.members),) if self.embedded else ()
        self._check_again_if_replaced(entry.shard)
        name, shape = self.stored(entry)
        parts, known = _Parts(entry, name, shape, beside), self._known[i]
        if known == _PLAIN:
            _, content = self._load_plain(parts, first, video)
            return self._decoded(entry, content, beside, draw)
        if known != _RIGHT:
            checked = self._load_checked(parts, first, video)
            if checked is not None:
                described = self._decoded(entry, checked, beside, draw)
                self._known[i] = _PLAIN
                return described
        content = self._members(parts, check=known != _RIGHT)
        extension, payload = name.rpartition(".")[2], content[name]
        video[:] = decode(extension, payload, shape, self.dtype)[first : first + len(video)]
        decoded = self._decoded(entry, content, beside, draw)
        if self.folder.steady:
            is_plain = extension == "npy" and payload.startswith(npy_header(shape, self.dtype))
            self._known[i] = _PLAIN if is_plain else _RIGHT
        return decoded

    def _check_again_if_replaced(self, shard: str) -> None:
        """Forget that clips of a local shard were right once its file has another size or time."""
        stamp = self.folder.stamp(shard)
        if stamp is None or self._stamps.setdefault(shard, stamp) == stamp:
            return
        self._stamps[shard] = stamp
        for span in self.clips.clip_ranges(shard):
            self._known[span.start : span.stop] = bytes(len(span))

    def _decoded(
        self, entry: ClipEntry, content: Mapping[str, bytes], beside: Sequence[str], draw: float
    ) -> Beside:
        meta, embedded = parse_metadata(content), None
        if self.embedded:
            width = self.dataset["text_encoder"]["width"]
            embedded = embedding.decode(content[beside[-1]], width)
        missing = mask.decode(content[MASK], entry.shape) if MASK in content else None
        return Beside(meta, words(meta, draw), embedded, missing)

    def _load_plain(
        self, parts: _Parts, first: int, video: ClipVideo
    ) -> tuple[bytes, dict[str, bytes]]:
        """Load frames without a copy from an npy laid out as `payload.encode` does.

        Returns the bytes where its header is, and those of what lies beside it, read at once where
        that lies before it. ValueError where the tar ends before them.
        """
        entry, name, shape, beside = parts
        members, header = entry.members, npy_header(shape, self.dtype)
        start, pixels = members[name].offset, video.reshape(-1).view(np.uint8).data
        near = [other for other in beside if 0 <= start - members[other].offset <= _APART]
        begin = min([start, *(members[other].offset for other in near)])
        before = start + len(header) - begin
        if first == 0:
            lead = bytearray(before)
            count = self.folder.read_into(entry.shard, begin, lead, pixels)
        else:
            lead = bytearray(self.folder.read(entry.shard, begin, before))
            place = start + len(header) + first * video[0].nbytes
            count = len(lead) + self.folder.read_into(entry.shard, place, pixels)
        if missing := before + len(pixels) - count:
            raise ValueError(f"the tar ends {missing} bytes too early")
        content = {}
        for other in beside:
            if other in near:
                place = members[other].offset - begin
                content[other] = bytes(lead[place : place + members[other].size])
            else:
                content[other] = self.read_member(entry, other)
        return bytes(lead[start - begin :]), content

    def _load_checked(self, parts: _Parts, first: int, video: ClipVideo) -> dict[str, bytes] | None:
        """Load a whole clip as `_load_plain` does and check its hash there; return what is beside.

        None where it is stored otherwise, or its folder may change. ValueError as of `_members`.
        """
        entry, name, shape, beside = parts
        member, header = entry.members.get(name), npy_header(shape, self.dtype)
        whole = first == 0 and video.shape == shape and video.dtype == self.dtype
        if not (self.folder.steady and whole and video.flags.c_contiguous and name == "npy"):
            return None
        if not entry.members.keys() >= set(beside):
            return None
        if member is None or member.xxh3 is None or member.size != len(header) + video.nbytes:
            return None
        wanted = {extension: entry.members[extension] for extension in beside}
        self._check_sizes(name, shape, wanted | {name: member})
        found, content = self._load_plain(parts, first, video)
        if found != header:
            return None
        if digest(header, "xxh3", video.reshape(-1).view(np.uint8).data) != member.xxh3:
            raise ValueError(f"its {name} has another xxh3 than the index says")
        if fault := _fault(0, wanted, content, check=True):
            raise ValueError(fault)
        return content

    def _members(self, parts: _Parts, check: bool) -> dict[str, bytes]:
        """Read the payload and what lies beside it, by extension, in one read."""
        entry, payload, shape, beside = parts
        named = (payload, *beside)
        if missing := set(named) - entry.members.keys():
            raise ValueError(f"the index names no {min(missing)} of it")
        wanted = {name: entry.members[name] for name in named}
        self._check_sizes(payload, shape, wanted)
        begin = min(member.offset for member in wanted.values())
        size = max(member.offset + member.size for member in wanted.values()) - begin
        for attempt in (1, 2):
            content = self.folder.read(entry.shard, begin, size)
            members_of = {
                name: content[member.offset - begin : member.offset - begin + member.size]
                for name, member in wanted.items()
            }
            fault = _fault(size - len(content), wanted, members_of, check)
            if fault is None:
                return members_of
            if attempt == 2 or not self.folder.forget(entry.shard, begin, size):
                break
        raise ValueError(fault)

    def _check_sizes(self, payload: str, shape: Shape, wanted: Mapping[str, Member]) -> None:
        """Raise ValueError where members are larger, or further apart, than a clip's can be."""
        limits, total = _limits(payload, shape, self.dtype), 0
        for name, member in wanted.items():
            limit = limits.get(name) or self._most_text
            total += member.size
            if member.size > limit:
                raise ValueError(f"its {name} has {member.size:,} bytes, more than {limit:,}")
        first = min(member.offset for member in wanted.values())
        end = max(member.offset + member.size for member in wanted.values())
        if end - first > total + _APART:
            raise ValueError("its members lie apart in the tar")

    @cached_property
    def _most_text(self) -> int:
        """Compute the most bytes of a caption's embedding."""
        width: int = (self.dataset.get("text_encoder") or {}).get("width", 0)
        return 2 * width * MOST_TOKENS + _HEADERS


@lru_cache(64)
def _limits(payload: str, shape: Shape, dtype: str) -> dict[str, int]:
    """Compute the most bytes of each member of a clip, but of its captions' embeddings."""
    values = math.prod(shape)
    limits = dict.fromkeys(METADATA, MOST_BYTES["KEY.json"])
    return limits | {
        MASK: values + _HEADERS,
        payload: 2 * values * np.dtype(dtype).itemsize + _HEADERS,
    }


def _fault(
    missing: int, members: Mapping[str, Member], content: Mapping[str, bytes], check: bool
) -> str | None:
    if missing:
        return f"the tar ends {missing} bytes too early"
    for name, member in members.items():
        kind: Hash = "sha256" if member.xxh3 is None else "xxh3"
        if check and digest(content[name], kind) != getattr(member, kind):
            return f"its {name} has another {kind} than the index says"
    return None


def open_shards(location: Path | str, split: str, access: Access | None = None) -> ShardIndex:
    """Open the clips of `split` in the folder at a path or URL.

    Raises UserError where the folder is missing or empty, the cut was not finished, the split is
    unknown or an index does not read.
    """
    folder = open_folder(location, access)
    dataset = read_dataset(folder)
    splits = dataset["splits"]
    if split not in splits:
        raise UserError(
            f"split {split!r} is not in {folder.location}; it has {', '.join(splits) or 'none'}; "
            f"name one of them, or cut the shards anew with --splits train=0.9,{split}=0.1"
        )
    clips = read_split(folder, splits[split])
    if not clips:
        raise UserError(f"split {split!r} of {folder.location} holds no clip; make the shards anew")
    return ShardIndex(folder, split, dataset, clips)


def read_dataset(folder: Folder) -> dict[str, Any]:
    """Read dataset.json of `folder`. UserError where there is none that this version reads."""
    try:
        dataset = read_json(folder, "dataset.json")
    except FileNotFoundError as error:
        names = folder.names() or []
        content = "is empty" if folder.steady and not names else "holds no dataset.json"
        unfinished = any(name.endswith(".index.json") or name == ".cut" for name in names)
        if not unfinished and any(name.endswith(".tar") for name in names):
            raise UserError(
                f"{folder.location} holds tars that were not made here: it has no dataset.json; "
                f"sdevid shards --dataset webdataset --input_dir {folder.location} --output_dir O "
                "cuts them into shards; sdevid shards index reads videos of one size as they are "
                "(evaluation needs either); training takes them without by data_reader=webdataset"
            ) from error
        raise UserError(
            f"shard folder {folder.location} {content}; {_MAKE}, and carries on where it was "
            "interrupted" + ("" if folder.steady else f" ({error}; check the address)")
        ) from error
    if dataset.get("format") != FORMAT:
        raise UserError(
            f"{folder.location}/dataset.json has format {dataset.get('format')!r}, but this "
            f"version reads {FORMAT}; make the shards anew"
        )
    checked(DatasetFields, dataset, f"{folder.location}/dataset.json")
    return dataset
