"""Any tree of videos: labels are folder names, captions come from a csv."""

from __future__ import annotations

from pathlib import Path

from sdevid.data.cut.sources import IMAGE, VIDEO, Listing, VideoSource, find, read_csv, readable
from sdevid.errors import UserError


def custom(folder: Path, captions: Path | None) -> Listing:
    """Any tree of videos: the label is the folder's name, captions come from `captions`.

    An image is listed as a source, so that it ends up in the quarantine list. Without `captions`,
    captions.csv in `folder` is taken where there is one. UserError where there is no video.
    """
    if captions is None and (folder / "captions.csv").is_file():
        captions = folder / "captions.csv"
    said = {} if captions is None else _read_captions(captions, folder)
    files = find(folder, VIDEO | IMAGE)
    if not any(path.suffix.lower() in VIDEO for path in files.values()):
        images = f"; it holds {len(files)} images, but frames are not read" if files else ""
        raise UserError(f"--input_dir {folder} holds no video{images}; give a folder of videos")
    listing = Listing()
    for name, path in files.items():
        label = "" if path.parent == folder else path.parent.name
        caption = said.pop(name, "")
        listing.sources.append(
            VideoSource(path, name, group=name, label=readable(label), caption=caption)
        )
    listing.left_out = [(name, f"is named in {captions}, but is not there") for name in said]
    return listing


def _read_captions(path: Path, folder: Path) -> dict[str, str]:
    captions: dict[str, str] = {}
    for row in read_csv(path, ("path", "caption")):
        name = Path(row["path"])
        if name.is_absolute() and name.is_relative_to(folder):
            name = name.relative_to(folder)
        captions[name.as_posix()] = row["caption"].strip()
    return captions
