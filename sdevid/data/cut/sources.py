"""Videos on disk: what a source is, how a folder is searched, and any tree of videos."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdevid.data.spec import CutClip, CutSpec
from sdevid.errors import UserError

VIDEO = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "asf", "avi", "flv", "gif", "h264", "h265", "hevc", "m2ts", "m4v", "mjpeg", "mkv"),
        *(
            "mov",
            "mp4",
            "mpeg",
            "mpg",
            "mts",
            "mxf",
            "ogm",
            "ogv",
            "ts",
            "vob",
            "webm",
            "wmv",
            "y4m",
        ),
    )
)
IMAGE = frozenset([".bmp", ".heic", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"])


@dataclass(frozen=True)
class VideoSource:
    """One video file."""

    path: Path
    name: str  # relative to the input folder
    group: str  # what was filmed in one go; a split never cuts through it
    split: str | None = None  # the official one
    label: str = ""
    caption: str = ""
    section: tuple[float, float] | None = None  # seconds; of a file that holds more than the clip

    def identity(self) -> list[Any]:
        """What a cut carried on must find unchanged."""
        said = [self.name, self.group, self.split, self.label, self.caption, self.section]
        return [*said, self.path.stat().st_size]

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        """Its clips in order of time. BadVideoError where it does not decode or is too short."""
        from sdevid.data.decode import cut_video

        for start, video, extra in cut_video(self.path, spec, self.section):
            yield CutClip(self.name, start, video, extra)


@dataclass
class Listing:
    """What a folder gives."""

    sources: list[VideoSource] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # named nowhere, or not there


def find(folder: Path, endings: frozenset[str]) -> dict[str, Path]:
    """Files under `folder` with one of the endings, by relative name, sorted; hidden ones not."""
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise UserError(f"--input_dir {folder} {what}, but must be a folder of videos")
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        for name in names if real not in seen else ():
            path = Path(place) / name
            if path.suffix.lower() in endings and not name.startswith(".") and path.is_file():
                found[readable(path.relative_to(folder).as_posix())] = path
        seen.add(real)
    return dict(sorted(found.items()))


def readable(name: str) -> str:
    """A file name as text that any encoding of it can be written in."""
    return os.fsencode(name).decode(errors="replace")


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv with a header. UserError where it does not read or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = reader.fieldnames or []
            rows = [{key: text or "" for key, text in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} does not read as a csv in UTF-8: {error}") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path} has the columns {', '.join(header) or 'none'}, but must begin with a header "
            f"that names {', '.join(columns)}"
        )
    return rows
