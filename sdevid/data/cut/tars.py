"""Videos in WebDataset tars of any maker: TarWriter, video2dataset, img2dataset.

A sample is the members that share a key: one video (mp4, avi, ..., npy) and what is said of it
(txt, json, cls). Its members are read by offset, so that worker processes share a tar.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from sdevid.data import mask
from sdevid.data.cut.sources import IMAGE, VIDEO, LeftOut, Listing
from sdevid.data.folder import Folder, FolderFile
from sdevid.data.npy import read_npy
from sdevid.data.open import open_folder
from sdevid.data.schema import MOST_BYTES, parse_meta
from sdevid.data.spec import BadVideoError, CutClip, CutSpec, LeftOutError
from sdevid.errors import UserError

_NPY = ".npy"
_SAID = (".txt", ".json", ".cls")
_PART = re.compile(r"_\d{5}$")  # what video2dataset adds to the key of a clip of a longer video
_AHEAD = 2**20  # bytes read at once
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?")  # within braces
_MOST_TARS, _LONGEST = 2**20, 4_096  # tars, and letters of a brace list

Described = tuple[dict[str, Any], str | None]  # fields of a TarSource; why they do not read


@dataclass(frozen=True)
class TarMember:
    """Where one file of a tar lies, in bytes."""

    name: str
    offset: int
    size: int


Sample = tuple[str, dict[str, TarMember], str | None]  # key, members by ending, fault


@dataclass(frozen=True)
class TarSource:
    """One video of a tar, or the rest of one that cannot be read."""

    folder: str  # path or URL
    tar: str
    member: TarMember
    group: str
    label: str = ""
    captions: tuple[str, ...] = ()
    fps: float | None = None  # of an npy, which has no clock of its own
    fault: str | None = None  # why the tar cannot be read from here on
    split: str | None = None
    rows: int = 0

    @property
    def name(self) -> str:
        """The tar's name and the member's."""
        return f"{self.tar}/{self.member.name}"

    @property
    def file(self) -> str:
        """The same as `name`."""
        return self.name

    @property
    def caption(self) -> str:
        """The first caption, or an empty text."""
        return self.captions[0] if self.captions else ""

    @property
    def size(self) -> int:
        """Size of the video in bytes."""
        return self.member.size

    def digest(self) -> bytes:
        """Hash the video's bytes with SHA-256."""
        return hashlib.sha256(self._content()).digest()

    def identity(self) -> list[Any]:
        """List what must not change for an interrupted cut to be resumed."""
        return [self.name, self.label, list(self.captions), self.member.size, self.fps]

    def clips(self, spec: CutSpec) -> Generator[CutClip, None, Counter[str]]:
        """Yield its clips in order of time; return counts of notable events, by name."""
        from sdevid.data.decode import cut_video

        if self.fault is not None:
            raise BadVideoError(self.fault)
        suffix = Path(self.member.name).suffix.lower()
        with tempfile.TemporaryDirectory(prefix="sdevid-") as folder:
            path = Path(folder) / f"video{'.nut' if suffix == _NPY else suffix}"
            if suffix == _NPY:
                _write_frames(path, self._content(), self.fps)
            else:
                path.write_bytes(self._content())
            several = {"captions": list(self.captions)} if len(self.captions) > 1 else {}
            cut = cut_video(path, spec)
            while True:
                try:
                    start, video, extra = next(cut)
                except StopIteration as end:
                    notes: Counter[str] = end.value
                    return notes
                missing = mask.of_frames(extra.get("missing", ()), len(video))
                yield CutClip(self.name, start, video, extra | several, missing)

    def _content(self) -> bytes:
        folder = open_folder(self.folder)
        try:
            content = folder.read(self.tar, self.member.offset, self.member.size)
        finally:
            folder.close()
        if len(content) != self.member.size:
            raise BadVideoError("the tar ends before the video does")
        return content


def _write_frames(path: Path, content: bytes, fps: float | None) -> None:
    """Write an npy of uint8 (time, height, width, 3 or 1) as a lossless video."""
    if fps is None:
        raise LeftOutError('is an npy without "fps" in its json')
    try:
        frames = read_npy(content)
    except ValueError as error:
        raise BadVideoError(f"does not decode: {error}") from error
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        raise LeftOutError(f"holds {frames.dtype} {frames.shape}, not uint8 frames of RGB")
    with av.open(str(path), "w", format="nut") as container:
        rate = Fraction(fps).limit_denominator(100_000)
        stream = container.add_stream("rawvideo", rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for frame in frames:
            colour = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode())


def webdataset(location: str) -> Listing:
    """List the videos of the tars at `location`, a folder or a brace list as s3://b/{0..9}.tar.

    Each member of each tar is used, left out, or one of the lists (what is said of a video).
    UserError where there is no tar or no video in them.
    """
    listing = Listing()
    for folder, tar in find_tars(location):
        try:
            _add_tar(listing, folder, tar)
        except FileNotFoundError:
            listing.files += 1
            listing.left_out.append(LeftOut(tar, "is not there"))
    if not listing.sources:
        reasons = f"; e.g. {' '.join(listing.left_out[0][:2])}" if listing.left_out else ""
        raise UserError(f"the tars at {location} hold no video{reasons}")
    return listing


def find_tars(location: str) -> list[tuple[str, str]]:
    """Find the tars at `location`: folder and name of each, in order. UserError for none."""
    if location.endswith(".tar"):
        folders = [text.rpartition("/") for text in _expanded(location)]
        return [(folder or ".", name) for folder, _, name in folders]
    names = open_folder(location).names()
    if names is None:
        raise UserError(
            f"{location} cannot be listed; name its tars, e.g. {location}/{{000..099}}.tar"
        )
    tars = [name for name in names if name.endswith(".tar")]
    if not tars:
        raise UserError(f"{location} holds no tar; give a folder of tars, or a brace list of them")
    return [(location, name) for name in tars]


def _expanded(location: str) -> list[str]:
    """Expand the braces of `location`. UserError where they do not close or name too many tars."""
    from braceexpand import braceexpand

    count = math.prod(map(_choices, _BRACES.findall(location[:_LONGEST])))
    try:
        if count <= _MOST_TARS and len(location) <= _LONGEST:
            names = list(islice(braceexpand(location), _MOST_TARS + 1))
            if len(names) <= _MOST_TARS:
                return names
    except ValueError as error:  # a brace that does not close
        raise UserError(f"{location}: {error}; close each brace, as in {{000..099}}") from error
    raise UserError(
        f"{location[:200]} names more than {_MOST_TARS:,} tars; give a smaller range, or the folder"
    )


def _choices(braces: str) -> int:
    """Count what braces of this content stand for, its step not counted."""
    ends = _RANGE.fullmatch(braces)
    return braces.count(",") + 1 if ends is None else abs(int(ends[2]) - int(ends[1])) + 1


def _add_tar(listing: Listing, folder: str, tar: str) -> None:
    files = open_folder(folder)
    stream = io.BufferedReader(FolderFile(files, tar), _AHEAD)
    for _, sample, fault in samples(files, tar):
        if fault is None:
            _add_sample(listing, folder, tar, sample, stream)
            continue
        rest = sample[""]
        listing.files += 1
        listing.sources.append(TarSource(folder, tar, rest, f"{tar}/{rest.name}", fault=fault))
    files.close()


def samples(folder: Folder, tar: str) -> Iterator[Sample]:
    """Yield key, members by extension, and fault of each sample of a tar; a fault ends it.

    Where the tar does not read to its end, the last sample holds what is left, with the fault.
    Raises FileNotFoundError where there is no tar.
    """
    stream = io.BufferedReader(FolderFile(folder, tar), _AHEAD)
    sample: dict[str, TarMember] = {}
    key, end = "", 0
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for info in archive:
                if not info.isreg():
                    continue
                end = info.offset_data + info.size
                place, _, name = info.name.rpartition("/")
                stem, _, ending = name.partition(".")
                of = f"{place}/{stem}" if place else stem
                if of != key and sample:
                    yield key, sample, None
                    sample = {}
                key = of
                sample[f".{ending.lower()}"] = TarMember(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        rest = {"": TarMember(f"(from byte {end} on)", end, 0)}
        yield "", rest, f"the tar does not read: {error}"
    if sample:
        yield key, sample, None


def _add_sample(
    listing: Listing, folder: str, tar: str, sample: dict[str, TarMember], stream: BinaryIO
) -> None:
    listing.files += len(sample)
    videos = [name for name in sample if name in VIDEO or name == _NPY]
    if not videos:
        for ending, member in sample.items():
            what = "is a picture, not a video" if ending in IMAGE else "belongs to no video"
            if f".{ending.rpartition('.')[2]}" in VIDEO:
                what = (
                    f"has the extension {ending[1:]}, all that follows the first dot, which is no "
                    "video's; write keys without dots"
                )
            listing.left_out.append(LeftOut(f"{tar}/{member.name}", what))
        return
    first, *others = videos
    for ending, member in sample.items():
        if ending in others or (ending != first and ending not in _SAID):
            listing.left_out.append(LeftOut(f"{tar}/{member.name}", f"lies beside a {first[1:]}"))
        elif ending in _SAID:
            listing.lists += 1
    member = sample[first]
    stem = member.name.rpartition(".")[0]
    fields, fault = _described_by(sample, stream)
    listing.sources.append(
        TarSource(folder, tar, member, f"{tar}/{_PART.sub('', stem)}", fault=fault, **fields)
    )


def _described_by(sample: dict[str, TarMember], stream: BinaryIO) -> Described:
    """Read captions, label and rate of a sample, or say why they do not read."""
    try:
        texts = {name: _text(sample[name], stream) for name in _SAID if name in sample}
        meta = parse_meta(texts[".json"].encode()) if ".json" in texts else {}
    except ValueError as error:
        return {}, f"what is said of it does not read: {error}"
    captions = [texts.get(".txt", ""), *(meta.get("captions") or [meta.get("caption") or ""])]
    label = texts.get(".cls", "") or meta.get("label") or ""
    fps = meta.get("fps")
    rate = float(fps) if isinstance(fps, int | float) and 0 < fps < 1e6 else None
    unique = tuple(dict.fromkeys(text.strip() for text in captions if text.strip()))
    return {"captions": unique, "label": label.strip(), "fps": rate}, None


def _text(member: TarMember, stream: BinaryIO) -> str:
    if member.size > MOST_BYTES["KEY.json"]:
        raise ValueError(f"{member.name} has {member.size:,} bytes")
    stream.seek(member.offset)
    return stream.read(member.size).decode()
