"""Clips in batches; the batches of all metrics move one display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdevid.display import Display

if TYPE_CHECKING:
    from sdevid.evaluate.metric import Metric

_current: list[Display] = []  # that of the metrics under way, or none


@contextmanager
def overall(count: int) -> Iterator[Display]:
    """Open one display of `count` metrics, in which their batches show."""
    with Display(count, "metrics", title="evaluating") as display:
        _current.append(display)
        try:
            yield display
        finally:
            _current.pop()


def each(metrics: Sequence[Metric]) -> Iterator[Metric]:
    """Yield the metrics in turn, under one display."""
    with overall(len(metrics)) as display:
        for metric in metrics:
            display.advance(0, note=metric.name.replace("_", " "))
            yield metric
            display.advance(1)


def batches(clips: range, size: int, title: str) -> Iterator[range]:
    """Yield `clips` cut into ranges of at most `size`.

    Counted by `each`'s display, or by its own.
    """
    if _current:
        for start in range(0, len(clips), size):
            _current[-1].advance(0, note=f"{title}: {start:,} of {len(clips):,}")
            yield clips[start : start + size]
        return
    with Display(len(clips), "clips", title=title) as display:
        for start in range(0, len(clips), size):
            part = clips[start : start + size]
            yield part
            display.advance(len(part))


def evenly(number: int, available: int) -> range:
    """Choose `number` of `available` clips at even distances; all, where there are no more."""
    chosen = min(number, available)
    return range(0, available, available // chosen)[:chosen]
