"""Captions of videos from csv files of path and caption; every row is accounted for."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from sdevid.data.cut.sources import FileListing, LeftOut, Listing, readable
from sdevid.data.cut.table import read_table

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
    for csv, base in lists.items():
        _read(csv, base, folder, videos, near, captions, listing)
    return captions


def _read(
    csv: Path,
    base: Path,
    folder: Path,
    videos: FileListing,
    near: Mapping[str, str],
    captions: dict[str, list[str]],
    listing: Listing,
) -> None:
    inside = csv.is_relative_to(folder)
    called = readable(csv.relative_to(folder)) if inside else csv.name
    for row in read_table(csv, ("path", "caption")):
        listing.rows += 1
        where = f"{called} line {row.line}"
        path = Path(row.fields.get("path", "").strip())
        if not path.is_absolute():
            path = base.relative_to(folder) / path
        if path.is_absolute() and path.is_relative_to(folder):
            path = path.relative_to(folder)
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


def _not_there(name: str, videos: FileListing, near: str | None) -> str:
    if name in videos.left_out:
        return f"names {name}, which {videos.left_out[name]}"
    return f"names {name}, which is not there" + (f"; did you mean {near}?" if near else "")


def _near(name: str) -> str:
    """Normalise a name, so that case, slashes and Unicode form make no difference."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return "/".join(part.strip() for part in plain.split("/") if part not in ("", "."))
