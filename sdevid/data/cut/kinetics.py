"""Kinetics: the published csv (label, youtube_id, time_start, time_end, split) and its clips.

Kay et al. 2017. A clip is called <id>_<start>_<end> with seconds in six digits, as the usual
downloaders call it, or just <id>; of the latter the section is cut, unless it was trimmed already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut.sources import VIDEO, Listing, VideoSource, find, read_csv
from sdevid.errors import UserError

WHERE = "https://github.com/cvdfoundation/kinetics-dataset"
_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
_SPLITS = {"validate": "val", "validation": "val", "val": "val", "train": "train", "test": "test"}


def kinetics(folder: Path, annotations: Sequence[Path], official: bool) -> Listing:
    """The clips of Kinetics in `folder` that the csv files name (default: those in `folder`).

    With `official`, splits are those of the csv.
    """
    files = find(folder, VIDEO)
    if not files:
        raise UserError(f"--input_dir {folder} holds no video of Kinetics; get it from {WHERE}")
    by_stem = {path.stem: (name, path) for name, path in files.items()}
    listing, seen = Listing(), set[str]()
    for csv in annotations or _find_csvs(folder):
        for number, row in enumerate(read_csv(csv, _COLUMNS), start=2):
            section = _section(csv, number, row)
            start, end = (int(second) for second in section)
            clip = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            stem = clip if clip in by_stem else row["youtube_id"]
            if stem not in by_stem or clip in seen:
                fault = "twice" if clip in seen else ", but is not there"
                listing.left_out.append((clip, f"is named in {csv.name} {fault}"))
                continue
            seen |= {clip, stem}
            name, path = by_stem[stem]
            listing.sources.append(
                VideoSource(
                    path,
                    name if stem == clip else f"{name}#{start}-{end}",
                    group=row["youtube_id"],
                    split=_split(csv, number, row) if official else None,
                    label=row.get("label", ""),
                    section=None if stem == clip else section,
                )
            )
    unnamed = [name for stem, (name, _) in by_stem.items() if stem not in seen]
    listing.left_out += [(name, "is in no csv") for name in unnamed]
    return listing


def _find_csvs(folder: Path) -> list[Path]:
    places = [folder, folder / "annotations", folder.parent]
    for place in places:
        found = [path for path in sorted(place.glob("*.csv")) if "youtube_id" in _header(path)]
        if found:
            return found
    raise UserError(
        f"no Kinetics csv in {folder}; name it with --annotations FILE.csv (label, youtube_id, "
        f"time_start, time_end, split); it comes with the data from {WHERE}"
    )


def _header(path: Path) -> str:
    with path.open(errors="replace") as file:
        return file.readline()


def _section(csv: Path, number: int, row: dict[str, str]) -> tuple[float, float]:
    try:
        section = float(row["time_start"]), float(row["time_end"])
    except ValueError:
        section = (0.0, 0.0)
    if not 0 <= section[0] < section[1]:
        raise UserError(
            f"{csv} line {number}: time_start {row['time_start']!r} and time_end "
            f"{row['time_end']!r} must be seconds, the first the smaller"
        )
    return section


def _split(csv: Path, number: int, row: dict[str, str]) -> str:
    split = _SPLITS.get(row["split"].strip().lower())
    if split is None:
        raise UserError(
            f"{csv} line {number}: split is {row['split']!r}, but must be train, validate or test"
        )
    return split
