"""Shards: plain WebDataset tars, an index beside each, and one dataset.json for the folder.

A clip is two members, KEY.json and one payload, or three with its caption's KEY.text.npy. An
index (train-000000.index.json) tells for each clip where its members lie, so that a clip is read
by offset. This is the only file that knows webdataset.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdevid.data import embedding
from sdevid.data.embedding import TEXT
from sdevid.data.folder import Access, Folder
from sdevid.data.open import open_folder
from sdevid.data.payload import ClipVideo, Shape, decode, npy_header
from sdevid.errors import UserError
from sdevid.types import Embedding

FORMAT = 1
_RIGHT, _PLAIN = 1, 2  # what is known of a clip: its sha256 is right; and its npy is as we write it
_AT_ONCE = 16  # indices read together from a remote folder
_TAR_BLOCK = 512
_MAKE = "python tools/make_shards.py makes one"


@dataclass(frozen=True)
class Member:
    """Where one file of a clip lies in its tar, in bytes."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class ClipEntry:
    """What the index says of one clip."""

    shard: str  # the tar's name
    key: str
    source: str  # the video it was cut from
    label: str
    num_frames: int
    fps: float
    height: int
    width: int
    channels: int
    members: Mapping[str, Member]  # by extension: json, one of npy, jpg, mp4, maybe text.npy

    @property
    def extension(self) -> str:
        """Of the payload: npy, jpg or mp4."""
        return next(name for name in ("npy", "jpg", "mp4") if name in self.members)

    @property
    def shape(self) -> Shape:
        """Of the video: time, height, width, channels."""
        return self.num_frames, self.height, self.width, self.channels


@dataclass(frozen=True)
class Clip:
    """One clip as it was cut: uint8 frames and the fields of its KEY.json."""

    key: str
    video: ClipVideo
    meta: dict[str, Any]


class Beside(NamedTuple):
    """What lies beside the video of a clip."""

    meta: dict[str, Any]  # of KEY.json
    embedding: Embedding | None  # where the index reads them


class DamagedClipError(UserError):
    """A clip that its shard does not hold as the index says; `reason` without the place."""

    def __init__(self, location: str, entry: ClipEntry, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"clip {entry.key} of {location}/{entry.shard} is damaged: {reason}; "
            f"`python tools/check_shards.py {location}` lists all that is damaged"
        )


@dataclass
class ShardIndex:
    """The clips of one split, in the order in which they were written; reads any of them.

    Bytes are compared with the index's sha256: at a clip's first read in this process on a local
    disk, at each read of a remote folder. What was found damaged stays so for the process. Safe
    from several threads.
    """

    folder: Folder
    split: str
    dataset: dict[str, Any]  # dataset.json; drawn data sets have "truth"
    clips: list[ClipEntry]
    embedded: bool = False  # whether text embeddings are read too; set before the first read
    _damage: dict[int, str] = field(default_factory=dict, repr=False)
    _known: bytearray = field(init=False, repr=False)  # _RIGHT or _PLAIN, once read

    def __post_init__(self) -> None:
        self._known = bytearray(len(self.clips))

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def shard_sizes(self) -> list[int]:
        """Clips of each shard."""
        return list(Counter(entry.shard for entry in self.clips).values())

    @cached_property
    def longest(self) -> int:
        """The most frames of a clip."""
        return max(entry.num_frames for entry in self.clips)

    def read(self, i: int) -> Clip:
        """Clip `i` as a whole. DamagedClipError where its shard does not hold it."""
        entry = self.clips[i]
        video = np.empty(entry.shape, np.uint8)
        return Clip(entry.key, video, self.read_into(i, 0, video).meta)

    def read_into(self, i: int, first: int, video: ClipVideo) -> Beside:
        """Write the frames of clip `i` from `first` on into `video`; what lies beside them.

        DamagedClipError where the shard does not hold it, UserError where it cannot be read.
        """
        entry = self.clips[i]
        reason = self._damage.get(i)
        if reason is None:
            try:
                return self._load(i, entry, first, video)
            except FileNotFoundError:
                reason = "the shard is missing"
            except ValueError as error:
                reason = str(error)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise UserError(
                        f"shard {self.folder.location}/{entry.shard} cannot be read: {error}"
                    ) from error
                reason = f"the disk does not give it ({error.strerror})"
            self._damage[i] = reason
        raise DamagedClipError(self.folder.location, entry, reason)

    def read_member(self, entry: ClipEntry, extension: str) -> bytes:
        """The bytes of one member, unchecked. ValueError where the tar ends before them."""
        member = entry.members[extension]
        content = self.folder.read(entry.shard, member.offset, member.size)
        if len(content) != member.size:
            raise ValueError(f"the tar ends {member.size - len(content)} bytes too early")
        return content

    def close(self) -> None:
        """Close the tars that reads have opened."""
        self.folder.close()

    def _load(self, i: int, entry: ClipEntry, first: int, video: ClipVideo) -> Beside:
        beside = ("json", TEXT) if self.embedded else ("json",)
        if self._known[i] == _PLAIN:
            self._load_pixels(entry, first, video)
            return self._decoded({name: self.read_member(entry, name) for name in beside})
        found = self._members(entry, beside, check=self._known[i] != _RIGHT)
        payload = found[entry.extension]
        video[:] = decode(entry.extension, payload, entry.shape)[first : first + len(video)]
        decoded = self._decoded(found)
        if self.folder.steady:
            plain_npy = entry.extension == "npy" and payload.startswith(npy_header(entry.shape))
            self._known[i] = _PLAIN if plain_npy else _RIGHT
        return decoded

    def _decoded(self, found: Mapping[str, bytes]) -> Beside:
        meta = json.loads(found["json"])
        if not self.embedded:
            return Beside(meta, None)
        return Beside(meta, embedding.decode(found[TEXT], self.dataset["text_encoder"]["width"]))

    def _load_pixels(self, entry: ClipEntry, first: int, video: ClipVideo) -> None:
        """From an npy payload that is as `payload.encode` writes it, without a copy."""
        start = entry.members["npy"].offset + len(npy_header(entry.shape))
        start += first * video[0].size
        missing = video.size - self.folder.read_into(entry.shard, start, video.reshape(-1).data)
        if missing:
            raise ValueError(f"the tar ends {missing} bytes too early")

    def _members(self, entry: ClipEntry, beside: Sequence[str], check: bool) -> dict[str, bytes]:
        """The payload and what lies beside it, by extension, in one read."""
        if not entry.members.keys() >= set(beside):
            raise ValueError(f"the index names no {TEXT} of it")
        wanted = {name: entry.members[name] for name in (entry.extension, *beside)}
        begin = min(member.offset for member in wanted.values())
        size = max(member.offset + member.size for member in wanted.values()) - begin
        for attempt in (1, 2):
            content = self.folder.read(entry.shard, begin, size)
            found = {
                name: content[member.offset - begin :][: member.size]
                for name, member in wanted.items()
            }
            fault = _fault(size - len(content), wanted, found, check)
            if fault is None:
                return found
            if attempt == 2 or not self.folder.forget(entry.shard, begin, size):
                break
        raise ValueError(fault)


def _fault(
    missing: int, members: Mapping[str, Member], found: Mapping[str, bytes], check: bool
) -> str | None:
    if missing:
        return f"the tar ends {missing} bytes too early"
    for name, member in members.items():
        if check and hashlib.sha256(found[name]).hexdigest() != member.sha256:
            return f"its {name} has another sha256 than the index says"
    return None


def open_shards(location: Path | str, split: str, access: Access | None = None) -> ShardIndex:
    """The clips of `split` in the folder at a path or URL.

    Raises UserError where the folder is missing or empty, the cut was not finished, the split is
    unknown or an index does not read.
    """
    folder = open_folder(location, access)
    dataset = read_dataset(folder)
    splits = dataset["splits"]
    if split not in splits:
        raise UserError(
            f"split {split!r} is not in {folder.location}; it has {', '.join(splits) or 'none'}"
        )
    with ThreadPoolExecutor(1 if folder.steady else _AT_ONCE) as pool:
        parts = pool.map(partial(read_index, folder), splits[split]["shards"])
        clips = [clip for part in parts for clip in part]
    if not clips:
        raise UserError(f"split {split!r} of {folder.location} holds no clip; make the shards anew")
    return ShardIndex(folder, split, dataset, clips)


def read_dataset(folder: Folder) -> dict[str, Any]:
    """dataset.json of `folder`. UserError where there is none that this version reads."""
    try:
        dataset = read_json(folder, "dataset.json")
    except FileNotFoundError as error:
        empty = folder.steady and not folder.names()
        content = "is empty" if empty else "holds no dataset.json"
        raise UserError(
            f"shard folder {folder.location} {content}; {_MAKE}, and carries on where it was "
            "interrupted" + ("" if folder.steady else f" ({error}; check the address)")
        ) from error
    if dataset.get("format") != FORMAT:
        raise UserError(
            f"{folder.location}/dataset.json has format {dataset.get('format')!r}, but this "
            f"version reads {FORMAT}; make the shards anew"
        )
    return dataset


def read_index(folder: Folder, shard: str) -> list[ClipEntry]:
    """The clips of the tar `shard`, from the index beside it. UserError where it does not read."""
    path = f"{folder.location}/{index_name(shard)}"
    try:
        return [
            ClipEntry(
                shard=shard,
                members={name: Member(**place) for name, place in clip.pop("members").items()},
                **clip,
            )
            for clip in read_json(folder, index_name(shard))["clips"]
        ]
    except FileNotFoundError as error:
        raise UserError(
            f"index {path} does not read (it is missing); copy it again or make it anew"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"index {path} lacks or misnames a field ({error}); make it anew"
        ) from error


def index_name(shard: str) -> str:
    """The name of the index beside the tar `shard`."""
    return shard.removesuffix(".tar") + ".index.json"


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
                "sha256": hashlib.sha256(content).hexdigest(),
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


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """The JSON object in a file. UserError where it does not read; FileNotFoundError."""
    path = f"{folder.location}/{name}"
    try:
        content = json.loads(folder.whole(name))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} does not read ({error.strerror}); copy it again") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); copy or make it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content
