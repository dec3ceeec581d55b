"""A process's sign of life: the step it came to, and what it is at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["start", "step", "checkpoint"]  # each may take as long as its setting says


@dataclass(frozen=True)
class Beat:
    """The last beat: its time (monotonic seconds), the step before it, and the phase begun then."""

    at: float
    step: int
    phase: Phase


class Heartbeat:
    """Set by the training thread, read by the watchdog's."""

    def __init__(self) -> None:
        self.last = Beat(time.monotonic(), 0, "start")

    def beat(self, step: int) -> None:
        """Record that step `step` is done and the next one begins."""
        self.last = Beat(time.monotonic(), step, "step")

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Mark, while the context is open, a phase that may take longer than a step."""
        before = self.last
        self.last = replace(before, at=time.monotonic(), phase=name)
        try:
            yield
        finally:
            self.last = replace(self.last, at=time.monotonic(), phase=before.phase)
