"""UCF101: a folder a class of v_<Class>_g<group>_c<clip>.avi, and the official split files.

Soomro, Zamir & Shah 2012. Clips of one group are cut from one video, so a split of our own never
cuts through a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut.sources import VIDEO, Listing, VideoSource, find
from sdevid.errors import UserError

WHERE = "https://www.crcv.ucf.edu/data/UCF101.php"
_OFFICIAL = ("ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt")


def ucf101(folder: Path, split_files: Sequence[Path], official: bool) -> Listing:
    """The videos of UCF101 in `folder`.

    With `official`, splits are those of `split_files` or else, where they are there, of the
    first official ones in `folder`/ucfTrainTestlist.
    """
    files = find(folder, VIDEO)
    if not files:
        raise UserError(f"--input_dir {folder} holds no video of UCF101; get it from {WHERE}")
    if official and not split_files:
        split_files = [folder / name for name in _OFFICIAL if (folder / name).is_file()]
    split_of = _read_splits(split_files) if official else {}
    listing = Listing()
    for name, path in files.items():
        split = split_of.pop(path.name, None)
        if split is None and split_files and official:
            listing.left_out.append((name, "is in none of the split files"))
            continue
        match = re.fullmatch(r"(v_.+_g\d+)_c\d+", path.stem)
        group = match[1] if match else name
        listing.sources.append(
            VideoSource(path, name, group=group, split=split, label=path.parent.name)
        )
    listing.left_out += [(name, "is in a split file, but is not there") for name in split_of]
    return listing


def _read_splits(files: Sequence[Path]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for path in files:
        match = re.match(r"(train|val|test)", path.name)
        if not match:
            raise UserError(
                f"--split_files {path}: the name must begin with train, val or test, as that of "
                "trainlist01.txt does"
            )
        try:
            lines = path.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--split_files {path} does not read: {error}") from error
        for line in filter(None, (line.strip() for line in lines)):
            name = Path(re.sub(r"\s+\d+$", "", line)).name
            if split_of.setdefault(name, match[1]) != match[1]:
                raise UserError(
                    f"{name} is in both {split_of[name]} and {match[1]} of --split_files"
                )
    return split_of
