"""Accounts for every file and every row: used, quarantined, or left out, and none twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sdevid.data.cut.parts import Fault
from sdevid.data.cut.sources import Listing

_ORDER = ("used", "bad", "left out")  # a file of several sections counts as the first of these


def account(listing: Listing, faults: Mapping[str, Fault]) -> dict[str, Any]:
    """Count the files and rows of `listing`, and what became of each.

    `faults` are those of the sources that gave no clip, by name. Raises RuntimeError where the sums
    do not agree, which is a fault of this program.
    """
    files: dict[str, str] = {}
    rows = Counter(dict.fromkeys(_ORDER, 0))
    for source in listing.sources:
        fault = faults.get(source.name)
        end = "used" if fault is None else fault.kind
        files[source.file] = min(end, files.get(source.file, end), key=_ORDER.index)
        rows[end] += source.rows
    ends = Counter(files.values())
    ends["left out"] += sum(item.of == "file" for item in listing.left_out)
    rows["left out"] += sum(item.of == "row" for item in listing.left_out)
    return {
        "files": _balanced("files", listing.files, ends, lists=listing.lists),
        "rows": _balanced("rows", listing.rows, rows),
    }


def _balanced(what: str, total: int, ends: Mapping[str, int], lists: int = 0) -> dict[str, int]:
    sums = {"found": total, "used": ends["used"], "quarantined": ends["bad"]}
    sums |= {"left_out": ends["left out"]} | ({"lists": lists} if what == "files" else {})
    if sum(sums.values()) - total != total:
        raise RuntimeError(f"{what} do not add up: {sums}")
    return sums
