"""UCF101: a folder a class of v_<Class>_g<group>_c<clip>.avi, and the official split files.

Soomro, Zamir & Shah 2012. Clips of one group are cut from one video, so a split of our own never
cuts through a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut.sources import VIDEO, LeftOut, Listing, VideoSource, find
from sdevid.errors import UserError

WHERE = "https://www.crcv.ucf.edu/data/UCF101.php"
_OFFICIAL = ("ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt")


def ucf101(
    folder: Path, split_files: Sequence[Path], official: bool, avoid: Path | None = None
) -> Listing:
    """List the videos of UCF101 in `folder`.

    With `official`, splits are those of `split_files` or else, where they are there, of the
    first official ones in `folder`/ucfTrainTestlist.
    """
    videos = find(folder, VIDEO, avoid)
    if not videos.files:
        raise UserError(f"--input_dir {folder} holds no video of UCF101; get it from {WHERE}")
    if official and not split_files:
        split_files = [folder / name for name in _OFFICIAL if (folder / name).is_file()]
    listing = videos.listing(tuple(split_files) if official else (), folder)
    rows = _read_splits(split_files, listing) if official else {}
    for name, path in videos.files.items():
        row = rows.pop(path.name, None)
        if row is None and split_files and official:
            listing.left_out.append(LeftOut(name, "is in none of the split files"))
            continue
        match = re.fullmatch(r"(v_.+_g\d+)_c\d+", path.stem)
        listing.sources.append(
            VideoSource(
                path,
                name,
                group=match[1] if match else name,
                split=row[0] if row else None,
                label=path.parent.name,
                file=name,
                rows=1 if row else 0,
            )
        )
    listing.left_out += [
        LeftOut(where, f"names {name}, which is not there", "row")
        for name, (_, where) in rows.items()
    ]
    return listing


def _read_splits(files: Sequence[Path], listing: Listing) -> dict[str, tuple[str, str]]:
    """Split, and where it stands, of each file name; repeated rows are left out."""
    rows: dict[str, tuple[str, str]] = {}
    for path in files:
        match = re.match(r"(train|val|test)", path.name)
        if not match:
            raise UserError(
                f"--split_files {path}: the name must begin with train, val or test, as that of "
                "trainlist01.txt does"
            )
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--split_files {path} does not read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            listing.rows += 1
            where = f"{path.name} line {number}"
            name = Path(re.sub(r"\s+\d+$", "", line.strip())).name
            before = rows.setdefault(name, (match[1], where))
            if before[0] != match[1]:
                raise UserError(f"{name} is in both {before[0]} and {match[1]} of --split_files")
            if before[1] != where:
                listing.left_out.append(LeftOut(where, f"names {name} once more", "row"))
    return rows
