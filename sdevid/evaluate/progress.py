"""Clips in batches, with a progress bar on standard error."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm


def batches(clips: range, size: int, title: str) -> Iterator[range]:
    """`clips` cut into ranges of at most `size`."""
    with tqdm(total=len(clips), desc=title, unit="clip") as bar:
        for start in range(0, len(clips), size):
            part = clips[start : start + size]
            yield part
            bar.update(len(part))


def evenly(number: int, available: int) -> range:
    """`number` of `available` clips at even distances; all, where there are no more."""
    chosen = min(number, available)
    return range(0, available, available // chosen)[:chosen]
