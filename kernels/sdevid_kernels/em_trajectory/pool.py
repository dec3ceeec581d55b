"""Segments that nobody uses, kept so that the next chain of their shape finds its pages in place.

A chain takes a segment out and gives it back after its backward pass. What a dropped graph held is
simply freed. Fresh pages cost more than the arithmetic on them: a third of a small training step.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from threading import Lock

import torch

from sdevid_kernels.em_trajectory.segment import Inputs, Segment

HELD = 64 * 2**20  # bytes of idle segments, at most
_ARENA = 31 * 2**20  # bytes: glibc gives what is smaller from a heap that it keeps, once freed one
_idle: deque[Segment] = deque()
_lock = Lock()


def take(inputs: Inputs, length: int) -> Segment:
    """A segment of `length` steps, bound to `inputs`."""
    _keep_heap()
    key = Segment.key_of(inputs, length)
    with _lock:
        found = next((segment for segment in _idle if segment.key == key), None)
        if found is not None:
            _idle.remove(found)
    segment = found or Segment(inputs, length)
    segment.bind(inputs)
    return segment


def give(segment: Segment) -> None:
    """Put back a segment that nobody else holds; the oldest make room."""
    segment.release()
    with _lock:
        _idle.append(segment)
        while sum(each.bytes for each in _idle) > HELD:
            _idle.popleft()


@cache
def _keep_heap() -> None:
    """Let the pages of short-lived tensors stay with the process (up to 62 MiB; mallopt(3)).

    glibc raises its thresholds for mapping and trimming with the largest block it sees freed.
    """
    torch.empty(_ARENA, dtype=torch.uint8)
