"""Shards: plain WebDataset tars, an index beside each, and one dataset.json for the folder.

A clip is two members, KEY.json and one payload; KEY.text.npy is kept for a text embedding. An
index (train-000000.index.json) tells for each clip where its members lie, so that a clip is read
by offset. This is the only file that knows webdataset.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdevid.data.payload import ClipVideo, decode
from sdevid.errors import UserError

FORMAT = 1
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
    members: Mapping[str, Member]  # by extension: json and one of npy, jpg, mp4

    @property
    def extension(self) -> str:
        """Of the payload: npy, jpg or mp4."""
        return next(name for name in ("npy", "jpg", "mp4") if name in self.members)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the video: time, height, width, channels."""
        return self.num_frames, self.height, self.width, self.channels


@dataclass(frozen=True)
class Clip:
    """One clip as it was cut: uint8 frames and the fields of its KEY.json."""

    key: str
    video: ClipVideo
    meta: dict[str, Any]


@dataclass
class ShardIndex:
    """The clips of one split, in the order in which they were written; reads any of them."""

    folder: Path
    split: str
    dataset: dict[str, Any]  # dataset.json; drawn data sets have "truth"
    clips: list[ClipEntry]
    _files: dict[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, i: int) -> Clip:
        """Clip `i`. Safe from several threads. UserError where the tar does not hold it."""
        entry = self.clips[i]
        try:
            meta = json.loads(self.read_member(entry, "json"))
            video = decode(entry.extension, self.read_member(entry, entry.extension), entry.shape)
        except ValueError as error:
            raise UserError(
                f"clip {entry.key} of {self.folder / entry.shard} is damaged: {error}; "
                f"`python tools/check_shards.py {self.folder}` lists all that is damaged"
            ) from error
        return Clip(entry.key, video, meta)

    def read_member(self, entry: ClipEntry, extension: str) -> bytes:
        """The bytes of one member. ValueError where the tar ends before them."""
        member = entry.members[extension]
        content = os.pread(self._file(entry.shard), member.size, member.offset)
        if len(content) != member.size:
            raise ValueError(f"the tar ends {member.size - len(content)} bytes too early")
        return content

    def close(self) -> None:
        """Close the tars that reads have opened."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, shard: str) -> int:
        if shard not in self._files:
            try:
                opened = os.open(self.folder / shard, os.O_RDONLY)
            except OSError as error:
                raise UserError(
                    f"shard {self.folder / shard} does not open ({error.strerror}), but "
                    "dataset.json names it; copy it again or make the shards anew"
                ) from error
            if self._files.setdefault(shard, opened) != opened:  # another thread was first
                os.close(opened)
        return self._files[shard]


def open_shards(folder: Path, split: str) -> ShardIndex:
    """The clips of `split` in `folder`.

    Raises UserError where the folder is missing or empty, the cut was not finished, the split is
    unknown or an index does not read.
    """
    dataset = read_dataset(folder)
    splits = dataset["splits"]
    if split not in splits:
        raise UserError(f"split {split!r} is not in {folder}; it has {', '.join(splits) or 'none'}")
    clips = [clip for shard in splits[split]["shards"] for clip in read_index(folder, shard)]
    if not clips:
        raise UserError(f"split {split!r} of {folder} holds no clip; make the shards anew")
    return ShardIndex(folder, split, dataset, clips)


def read_dataset(folder: Path) -> dict[str, Any]:
    """dataset.json of `folder`. UserError where there is none that this version reads."""
    if not folder.is_dir():
        raise UserError(f"shard folder {folder} does not exist; {_MAKE}")
    path = folder / "dataset.json"
    if not path.is_file():
        content = "is empty" if not any(folder.iterdir()) else "holds no dataset.json"
        raise UserError(
            f"shard folder {folder} {content}; {_MAKE}, and carries on where it was interrupted"
        )
    dataset = read_json(path)
    if dataset.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {dataset.get('format')!r}, but this version reads {FORMAT}; "
            "make the shards anew"
        )
    return dataset


def read_index(folder: Path, shard: str) -> list[ClipEntry]:
    """The clips of the tar `shard`, from the index beside it. UserError where it does not read."""
    path = folder / index_name(shard)
    try:
        return [
            ClipEntry(
                shard=shard,
                members={name: Member(**place) for name, place in clip.pop("members").items()},
                **clip,
            )
            for clip in read_json(path)["clips"]
        ]
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

    def add(self, key: str, meta: dict[str, Any], extension: str, payload: bytes) -> None:
        """Append the clip `key`, whose `meta` becomes KEY.json."""
        members = {
            extension: payload,
            "json": json.dumps(meta, sort_keys=True, ensure_ascii=False).encode(),
        }
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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. UserError where it does not read."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} does not read ({error.strerror}); copy it again") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); copy or make it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content
