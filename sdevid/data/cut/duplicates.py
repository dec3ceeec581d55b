"""Videos of the same bytes, put into one group so that no split cuts between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from sdevid.data.cut.sources import FileSource

Source = TypeVar("Source", bound=FileSource)


def group_duplicates(sources: Sequence[Source]) -> tuple[list[Source], int]:
    """Put files of the same bytes, and all that shares their groups, into one group.

    Returns the sources and the number of duplicates. Only files of the same size are read. Sections
    of one file are no duplicates of each other.
    """
    by_size: dict[int, dict[str, Source]] = defaultdict(dict)  # a source of each file
    for source in sources:
        by_size[source.size].setdefault(source.file, source)
    parents: dict[str, str] = {}
    count = 0
    for files in by_size.values():
        first: dict[bytes, str] = {}
        for source in files.values() if len(files) > 1 else ():
            content = source.digest()
            count += content in first
            _join(parents, first.setdefault(content, source.group), source.group)
    return [_grouped(source, _root(parents, source.group)) for source in sources], count


def _join(parents: dict[str, str], first: str, second: str) -> None:
    """Make two groups one, under the smaller name."""
    small, large = sorted((_root(parents, first), _root(parents, second)))
    if small != large:
        parents[large] = small


def _root(parents: dict[str, str], group: str) -> str:
    while group in parents:
        group = parents[group]
    return group


def _grouped(source: Source, group: str) -> Source:
    changed: Source = replace(source, group=group)  # type: ignore[type-var]
    return changed
