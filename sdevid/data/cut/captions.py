"""Captions of videos from csv files of path and caption; every row is accounted for."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdevid.data.cut.sources import FileListing, LeftOut, Listing, readable
from sdevid.data.cut.table import TableRow, read_table

NAME = "captions.csv"


def caption_lists(folder: Path, given: Path | None) -> dict[Path, Path]:
    """Find the lists of captions, each with the folder that its paths begin in.

    Without a `given` one, captions.csv of `folder` and of the folders in it, as a data set has that
    lies in a folder for each split.
    """
    if given is not None:
        return {given: folder}
    lists = (folder / NAME, *sorted(folder.glob(f"[!.]*/{NAME}")))
    return {path: path.parent for path in lists if path.is_file()}


def read_captions(
    lists: Mapping[Path, Path], folder: Path, videos: FileListing, listing: Listing
) -> dict[str, list[str]]:
    """Read the captions of `caption_lists` by file name; unusable rows are listed as left out."""
    captions: dict[str, list[str]] = {}
    near = {_near(name): name for name in videos.files}
    for where, path, row in _rows(lists, folder):
        listing.rows += 1
        name, text = path.as_posix(), row.fields.get("caption", "").strip()
        fault = row.fault
        if fault is None and name not in videos.files:
            fault = _not_there(readable(path), videos, near.get(_near(name)))
        if fault is None and not text:
            fault = f"has no caption for {name}"
        if fault is None and text in captions.get(name, ()):
            fault = f"repeats a caption of {name}"
        if fault is None:
            if name in captions:
                listing.remarks.append(f"{where} gives another caption of {name}; all are kept")
            captions.setdefault(name, []).append(text)
        else:
            listing.left_out.append(LeftOut(where, fault, "row"))
    return captions


def _rows(lists: Mapping[Path, Path], folder: Path) -> Iterator[tuple[str, Path, TableRow]]:
    """Yield each row with its place and its path, relative to `folder` where it lies there."""
    for csv, base in lists.items():
        called = readable(csv.relative_to(folder)) if csv.is_relative_to(folder) else csv.name
        for row in read_table(csv, ("path", "caption")):
            path = base / row.fields.get("path", "").strip()
            within = path.relative_to(folder) if path.is_relative_to(folder) else path
            yield f"{called} line {row.line}", within, row


def _not_there(name: str, videos: FileListing, near: str | None) -> str:
    if name in videos.left_out:
        return f"names {name}, which {videos.left_out[name]}"
    return f"names {name}, which is not there" + (f"; did you mean {near}?" if near else "")


def _near(name: str) -> str:
    """Normalise a name, so that case, slashes and Unicode form make no difference."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return "/".join(part.strip() for part in plain.split("/") if part not in ("", "."))
