"""Every file and row has one end, and copies of a video share a split."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdevid.data.cut.account import account
from sdevid.data.cut.duplicates import group_duplicates
from sdevid.data.cut.parts import Fault
from sdevid.data.cut.sources import LeftOut, Listing, VideoSource


def source(name: str, file: str = "", rows: int = 0, group: str = "") -> VideoSource:
    file = file or name
    return VideoSource(Path(file), name, group=group or name, file=file, rows=rows)


def test_files_and_rows_end_once_each():
    sections = [source("a.mp4#0-1", "a.mp4", 1), source("a.mp4#2-3", "a.mp4", 1)]
    others = [source("b.mp4", rows=2), source("c.mp4", rows=1)]
    left_out = [LeftOut("x.txt", "is no video"), LeftOut("k.csv line 9", "is not there", "row")]
    listing = Listing([*sections, *others], left_out, files=5, lists=1, rows=6)
    faults = {
        "a.mp4#2-3": Fault("is torn", "bad"),
        "b.mp4": Fault("is torn", "bad"),
        "c.mp4": Fault("is too short", "left out"),
    }
    assert account(listing, faults) == {
        "files": {"found": 5, "used": 1, "quarantined": 1, "left_out": 2, "lists": 1},
        "rows": {"found": 6, "used": 1, "quarantined": 3, "left_out": 2},
    }
    listing.files += 1
    with pytest.raises(RuntimeError, match="files do not add up"):
        account(listing, faults)


def test_exact_copies_share_a_group_with_all_that_share_theirs(tmp_path):
    contents = {"a.mp4": b"one", "b.mp4": b"two", "c.mp4": b"one", "d.mp4": b"four"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    groups = {"a.mp4": "g1", "b.mp4": "g2", "c.mp4": "g2", "d.mp4": "g3"}
    sources = [VideoSource(tmp_path / n, n, group=g, file=n) for n, g in groups.items()]
    grouped, count = group_duplicates(sources)
    assert count == 1
    assert [s.group for s in grouped] == ["g1", "g1", "g1", "g3"]
