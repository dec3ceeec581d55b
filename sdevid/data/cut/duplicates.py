"""Videos of the same bytes, put into one group so that no split cuts between them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdevid.data.cut.sources import VideoSource

_AT_ONCE = 2**20  # bytes


def group_duplicates(sources: Sequence[VideoSource]) -> tuple[list[VideoSource], int]:
    """The sources, duplicates in one group with all that shares theirs; and how many they are.

    Only files of the same size are read. Sections of one file are no duplicates of each other.
    """
    by_size: dict[int, dict[Path, str]] = defaultdict(dict)  # to the group of each file
    for source in sources:
        by_size[source.path.stat().st_size][source.path] = source.group
    parents: dict[str, str] = {}
    count = 0
    for groups in by_size.values():
        first: dict[bytes, str] = {}
        for path, group in groups.items() if len(groups) > 1 else ():
            content = _sha256(path)
            count += content in first
            _join(parents, first.setdefault(content, group), group)
    return [replace(source, group=_root(parents, source.group)) for source in sources], count


def _join(parents: dict[str, str], first: str, second: str) -> None:
    """Make two groups one, under the smaller name."""
    small, large = sorted((_root(parents, first), _root(parents, second)))
    if small != large:
        parents[large] = small


def _root(parents: dict[str, str], group: str) -> str:
    while group in parents:
        group = parents[group]
    return group


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            digest.update(part)
    return digest.digest()
