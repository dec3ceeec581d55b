"""Kinetics: the published csv (label, youtube_id, time_start, time_end, split) and its clips.

Kay et al. 2017. A clip is called <id>_<start>_<end> with seconds in six digits, as the usual
downloaders call it, or just <id>; of the latter the section is cut, unless it was trimmed already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut.sources import VIDEO, LeftOut, Listing, VideoSource, find
from sdevid.data.cut.table import TableRow, read_table
from sdevid.errors import UserError

WHERE = "https://github.com/cvdfoundation/kinetics-dataset"
_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
_SPLITS = {"validate": "val", "validation": "val", "val": "val", "train": "train", "test": "test"}


def kinetics(
    folder: Path, annotations: Sequence[Path], official: bool, avoid: Path | None = None
) -> Listing:
    """List the clips of Kinetics in `folder` that the csv files name (default: those in `folder`).

    With `official`, splits are those of the csv.
    """
    videos = find(folder, VIDEO, avoid)
    if not videos.files:
        raise UserError(f"--input_dir {folder} holds no video of Kinetics; get it from {WHERE}")
    csvs = tuple(annotations or _find_csvs(folder))
    listing = videos.listing(csvs, folder)
    clips = _Clips(listing, official)
    for name, path in videos.files.items():
        if path.stem in clips.by_stem:
            other = clips.by_stem[path.stem][0]
            listing.left_out.append(LeftOut(name, f"has the name of {other}, which is taken"))
        else:
            clips.by_stem[path.stem] = name, path
    for csv in csvs:
        for row in read_table(csv, _COLUMNS):
            clips.add(csv, row)
    listing.left_out += [
        LeftOut(name, "is in no csv")
        for stem, (name, _) in clips.by_stem.items()
        if stem not in clips.used
    ]
    return listing


class _Clips:
    """Pairs rows with files; each row ends in the listing, as a source or as left out."""

    def __init__(self, listing: Listing, official: bool) -> None:
        self._listing, self._official = listing, official
        self.by_stem: dict[str, tuple[str, Path]] = {}
        self.used: set[str] = set()  # stems
        self._seen: set[str] = set()  # clips

    def add(self, csv: Path, row: TableRow) -> None:
        """Add the source that a row names. UserError where its times or split make no sense."""
        self._listing.rows += 1
        if row.fault is not None:
            return self._leave(csv, row, row.fault)
        section = _section(csv, row)
        start, end = (int(second) for second in section)
        video = row.fields["youtube_id"]
        clip = f"{video}_{start:06d}_{end:06d}"
        stem = clip if clip in self.by_stem else video
        if clip in self._seen:
            return self._leave(csv, row, f"names {clip} once more")
        if stem not in self.by_stem:
            return self._leave(csv, row, f"names {clip}, which is not there")
        self._seen.add(clip)
        self.used.add(stem)
        name, path = self.by_stem[stem]
        self._listing.sources.append(
            VideoSource(
                path,
                name if stem == clip else f"{name}#{start}-{end}",
                group=video,
                split=_split(csv, row) if self._official else None,
                label=row.fields.get("label", "").strip(),
                section=None if stem == clip else section,
                file=name,
                rows=1,
            )
        )
        return None

    def _leave(self, csv: Path, row: TableRow, reason: str) -> None:
        self._listing.left_out.append(LeftOut(f"{csv.name} line {row.line}", reason, "row"))


def _find_csvs(folder: Path) -> list[Path]:
    for place in (folder, folder / "annotations", folder.parent):
        csvs = [path for path in sorted(place.glob("*.csv")) if "youtube_id" in _header(path)]
        if csvs:
            return csvs
    raise UserError(
        f"no Kinetics csv in {folder}; name it with --annotations FILE.csv (label, youtube_id, "
        f"time_start, time_end, split); it comes with the data from {WHERE}"
    )


def _header(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(10_000)


def _section(csv: Path, row: TableRow) -> tuple[float, float]:
    begin, end = row.fields["time_start"], row.fields["time_end"]
    try:
        section = float(begin), float(end)
    except ValueError:
        section = (0.0, 0.0)
    if not 0 <= section[0] < section[1] < float("inf"):
        raise UserError(
            f"{csv} line {row.line}: time_start {begin!r} and time_end {end!r} must be seconds, "
            "the first the smaller"
        )
    return section


def _split(csv: Path, row: TableRow) -> str:
    split = _SPLITS.get(row.fields["split"].strip().lower())
    if split is None:
        raise UserError(
            f"{csv} line {row.line}: split is {row.fields['split']!r}, but must be train, "
            "validate or test"
        )
    return split
