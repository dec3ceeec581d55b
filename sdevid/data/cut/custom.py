"""Any tree of videos: labels are folders, captions come from a csv."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from sdevid.data.cut.sources import (
    IMAGE,
    VIDEO,
    FileListing,
    LeftOut,
    Listing,
    VideoSource,
    find,
    readable,
)
from sdevid.data.cut.table import read_table
from sdevid.errors import UserError


def custom(
    folder: Path, captions: Path | None, avoid: Path | None = None, label_level: int = 0
) -> Listing:
    """List the videos under `folder`, but for those under `avoid`.

    A label is the whole relative folder, or its first `label_level` names where that is not 0.
    Without `captions`, captions.csv in `folder` is taken where there is one; of a video named in
    several rows all captions are kept. UserError where there is no video.
    """
    if captions is None and (folder / "captions.csv").is_file():
        captions = folder / "captions.csv"
    videos = find(folder, VIDEO, avoid)
    if not videos.files:
        raise UserError(f"--input_dir {folder} holds no video{_held(videos)}")
    listing = videos.listing(() if captions is None else (captions,), folder)
    captions_of = {} if captions is None else read_captions(captions, folder, videos, listing)
    for name, path in videos.files.items():
        texts = captions_of.get(name, ())
        listing.sources.append(
            VideoSource(
                path,
                name,
                group=name,
                label=label_of(name, label_level),
                captions=tuple(texts),
                file=name,
                rows=len(texts),
            )
        )
    return listing


def label_of(name: str, level: int) -> str:
    """Return the folder of `name`, or its first `level` names where that is not 0."""
    levels = name.split("/")[:-1]
    return "/".join(levels[:level] if level else levels)


def _held(videos: FileListing) -> str:
    pictures = sum(Path(name).suffix.lower() in IMAGE for name in videos.left_out)
    tars = sum(name.endswith(".tar") for name in videos.left_out)
    held = f"; it holds {pictures} images, but frames are not read" if pictures else ""
    held += f"; it holds {tars} tars, which --dataset webdataset cuts" if tars else ""
    return f"{held}; give a folder of videos"


def read_captions(
    csv: Path, folder: Path, videos: FileListing, listing: Listing
) -> dict[str, list[str]]:
    """Read captions by file name; unusable rows are listed as left out."""
    captions: dict[str, list[str]] = {}
    near = {_near(name): name for name in videos.files}
    for row in read_table(csv, ("path", "caption")):
        listing.rows += 1
        where = f"{csv.name} line {row.line}"
        path = Path(row.fields.get("path", "").strip())
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
    return captions


def _not_there(name: str, videos: FileListing, near: str | None) -> str:
    if name in videos.left_out:
        return f"names {name}, which {videos.left_out[name]}"
    return f"names {name}, which is not there" + (f"; did you mean {near}?" if near else "")


def _near(name: str) -> str:
    """Normalise a name, so that case, slashes and Unicode form make no difference."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return "/".join(part.strip() for part in plain.split("/") if part not in ("", "."))
