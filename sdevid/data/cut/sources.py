"""Videos on disk: what a source is, and a search that accounts for every file of a folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from sdevid.data import mask
from sdevid.data.arrays.stack import ANIMATION, is_animation
from sdevid.data.spec import ClipSource, CutClip, CutSpec
from sdevid.errors import UserError

VIDEO = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "asf", "avi", "flv", "gif", "h264", "h265", "hevc", "m2ts", "m4v", "mjpeg", "mkv"),
        *("mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogm", "ogv", "ts", "vob", "webm", "wmv"),
        "y4m",
    )
)
_TAR = "is a tar, not a video; --dataset webdataset cuts the videos in it"
_WEBP = "is a webp animation, which is cut beside no other videos; move it to a folder of its own"
IMAGE = frozenset([".bmp", ".heic", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])


_AT_ONCE = 2**20  # bytes


class FileSource(ClipSource, Protocol):
    """A source whose video is a file, or lies in one."""

    @property
    def file(self) -> str:
        """The file's name in the listing."""
        ...

    @property
    def rows(self) -> int:
        """How many rows of captions, splits or annotations name it."""
        ...

    @property
    def captions(self) -> tuple[str, ...]:
        """All its captions."""
        ...

    @property
    def size(self) -> int:
        """Size of the video in bytes."""
        ...

    def digest(self) -> bytes:
        """Hash the video's bytes."""
        ...


_OTHERS = {".tar": _TAR, **dict.fromkeys(IMAGE, "is a picture, not a video")}  # reasons


@dataclass(frozen=True)
class VideoSource:
    """One video file, or a section of one."""

    path: Path
    name: str  # relative to the input folder; with #start-end for a section
    group: str  # what was filmed in one go; a split never cuts through it
    split: str | None = None  # the official one
    label: str = ""
    captions: tuple[str, ...] = ()
    section: tuple[float, float] | None = None  # seconds; of a file that holds more than the clip
    file: str = ""  # relative to the input folder
    rows: int = 0  # of captions, splits or annotations that speak of it

    @property
    def caption(self) -> str:
        """The first caption, or an empty text."""
        return self.captions[0] if self.captions else ""

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def digest(self) -> bytes:
        """Hash the file with SHA-256."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while part := file.read(_AT_ONCE):
                digest.update(part)
        return digest.digest()

    def identity(self) -> list[Any]:
        """List what must not change for an interrupted cut to be resumed."""
        fields = [self.name, self.group, self.split, self.label, list(self.captions), self.section]
        return [*fields, self.size]

    def clips(self, spec: CutSpec) -> Generator[CutClip, None, Counter[str]]:
        """Yield its clips in order of time; return counts of notable events, by name.

        Raises BadVideoError where it is damaged, LeftOutError where it gives no clip.
        """
        from sdevid.data.arrays.fit import in_channels
        from sdevid.data.decode import cut_video, is_grey

        several = {"captions": list(self.captions)} if len(self.captions) > 1 else {}
        grey = spec.channels == "grey" or (spec.channels == "keep" and is_grey(self.path))
        cut = cut_video(self.path, spec, self.section)
        while True:
            try:
                start, video, extra = next(cut)
            except StopIteration as end:
                notes: Counter[str] = end.value
                return notes
            if spec.channels != "rgb":
                video = in_channels(video, "grey" if grey else spec.channels)
            missing = mask.of_frames(extra.get("missing", ()), len(video))
            yield CutClip(self.name, start, video, extra | several, missing)


class LeftOut(NamedTuple):
    """A file, or a row of a list, that is not used though nothing is damaged."""

    name: str
    reason: str
    of: Literal["file", "row"] = "file"


@dataclass
class Listing:
    """What a folder and its lists give: every file and row is in one of its parts."""

    sources: list[FileSource] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    files: int = 0  # found in the folder
    lists: int = 0  # of these, the files read as captions, splits or annotations
    rows: int = 0  # of all lists
    remarks: list[str] = field(default_factory=list)  # of rows that are used


@dataclass
class FileListing:
    """The files of a folder: those with a wanted ending by name, and the others with a reason."""

    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # name: reason

    def listing(self, lists: tuple[Path, ...], folder: Path) -> Listing:
        """Begin a listing of these files, with `lists` read as lists and not left out."""
        total = len(self.files) + len(self.left_out)
        listed = 0
        for path in lists:
            if path.is_relative_to(folder):
                listed += self.left_out.pop(readable(path.relative_to(folder)), None) is not None
        left_out = [LeftOut(name, reason) for name, reason in self.left_out.items()]
        return Listing(left_out=left_out, files=total, lists=listed)


def find(
    folder: Path, endings: frozenset[str], avoid: Path | None = None, kind: str = "video"
) -> FileListing:
    """Search `folder` but for `avoid`, each file once; links are followed last.

    A folder with one of the `endings` is taken as a file; `kind` is what they are called. Names are
    relative to `folder`, in order. UserError where it is not a folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise UserError(f"--input_dir {folder} {what}, but must be a folder of videos")
    search = _Search(folder, endings, avoid, kind)
    search.run()
    return FileListing(dict(sorted(search.listing.files.items())), search.listing.left_out)


class _Search:
    """A walk in which a folder or file that several names reach is taken by the first."""

    def __init__(
        self, folder: Path, endings: frozenset[str], avoid: Path | None, kind: str
    ) -> None:
        self._folder, self._endings, self._kind = folder, endings, kind
        self._avoid = _key(avoid.stat()) if avoid is not None and avoid.is_dir() else None
        self._taken: dict[tuple[int, int], str] = {}  # names of files and folders by inode
        self._links: deque[Path] = deque()
        self.listing = FileListing()

    def run(self) -> None:
        self._walk(self._folder)
        while self._links:
            self._follow(self._links.popleft())

    def _walk(self, folder: Path) -> None:
        """Walk a folder and its subfolders in order of names; links wait until the end."""
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            key = _key(place.stat())
            if key in self._taken or key == self._avoid:
                continue
            if place != self._folder and place.suffix.lower() in self._endings:
                self._file(place)
                continue
            self._taken[key] = self._name(place)
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError as error:
                self._leave(place, f"is a folder that cannot be read ({error.strerror})")
                continue
            folders = []
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink():
                    self._links.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    self._file(path)
            waiting += reversed(folders)

    def _follow(self, link: Path) -> None:
        try:
            target = link.stat()
        except OSError:  # nothing there, or a circle
            return self._leave(link, f"is a broken link to {readable(link.readlink())}")
        taken = self._taken.get(_key(target))
        if taken is not None:
            return self._leave(link, f"is a link to {taken or 'the folder itself'}, which is taken")
        return self._walk(link) if stat.S_ISDIR(target.st_mode) else self._file(link)

    def _file(self, path: Path) -> None:
        state = path.stat()
        kind = path.suffix.lower()
        is_whole = stat.S_ISDIR(state.st_mode) and kind in self._endings
        if not (stat.S_ISREG(state.st_mode) or is_whole):
            return self._leave(path, "is not a regular file")
        if any(part.startswith(".") for part in path.relative_to(self._folder).parts):
            return self._leave(path, "is hidden")
        if kind not in self._endings:
            if kind == ANIMATION and is_animation(path):
                return self._leave(path, _WEBP)
            return self._leave(path, _OTHERS.get(kind, f"is no {self._kind} by its name"))
        name = self._name(path)
        self._taken.setdefault(_key(state), name)
        self.listing.files[name] = path
        return None

    def _leave(self, path: Path, reason: str) -> None:
        self.listing.left_out[self._name(path)] = reason

    def _name(self, path: Path) -> str:
        """Name a path relative to the folder; a name that is taken gets a number."""
        name = first = readable(path.relative_to(self._folder))
        number = 1
        while name in self.listing.files or name in self.listing.left_out:
            number += 1
            name = f"{first} ({number})"
        return "" if name == "." else name


def _key(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def readable(path: Path) -> str:
    r"""Convert a path to text; bytes that are not UTF-8 become \xNN, which keeps paths distinct."""
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")
