"""Any tree of videos: labels are folders, captions come from a csv."""

from __future__ import annotations

from pathlib import Path

from sdevid.data.cut.captions import caption_lists, read_captions
from sdevid.data.cut.sources import (
    IMAGE,
    VIDEO,
    FileListing,
    Listing,
    VideoSource,
    find,
)
from sdevid.errors import UserError


def custom(
    folder: Path, captions: Path | None, avoid: Path | None = None, label_level: int = 0
) -> Listing:
    """List the videos under `folder`, but for those under `avoid`.

    A label is the whole relative folder, or its first `label_level` names where that is not 0.
    Without `captions`, captions.csv in `folder` and in the folders in it are taken; of a video
    named in several rows all captions are kept. UserError where there is no video.
    """
    lists = caption_lists(folder, captions)
    videos = find(folder, VIDEO, avoid)
    if not videos.files:
        raise UserError(f"--input_dir {folder} holds no video{_held(videos)}")
    listing = videos.listing(tuple(lists), folder)
    captions_of = read_captions(lists, folder, videos, listing)
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
