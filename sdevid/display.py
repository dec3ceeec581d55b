"""How far a long job has come: one calm line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

from sdevid import console

PLAIN_SECONDS = 30.0  # between two lines where no terminal shows the output
LIVE_SECONDS = 0.5
_LINE = (
    "{desc}{percentage:3.0f}% |{bar:10}| {n_fmt} of {total_fmt} {unit}, {remaining} left{postfix}"
)


class Display:
    """Progress of one job on standard error; a context manager that ends its line.

    `note` stands behind the count. Where standard error is no terminal, a line is printed after the
    first advance, then every half minute, and at the end. Nothing is shown where `shown` is false,
    or where the level is above info (`--quiet`).
    """

    def __init__(
        self, total: int, unit: str, *, title: str = "", initial: int = 0, shown: bool = True
    ) -> None:
        self._total, self._unit, self._title = total, unit, title
        self._count = self._initial = initial
        self.note = ""  # stands behind the count
        self._shown: int | None = None
        self.shown = shown and console.shows("info")
        self._live = self.shown and sys.stderr.isatty()
        self._began = time.monotonic()
        self._at = float("-inf")  # of the last line
        columns, rows = shutil.get_terminal_size((120, 24))  # a size of 0 is that of no terminal
        self._bar = tqdm(
            total=total,
            initial=initial,
            unit=unit,
            desc=title or None,
            disable=not self._live,
            mininterval=float("inf"),  # `advance` draws,
            ncols=columns,
            nrows=rows,
            bar_format=_LINE,
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def due(self) -> bool:
        """Whether the next `advance` shows its note."""
        pause = LIVE_SECONDS if self._live else PLAIN_SECONDS
        return self.shown and time.monotonic() - self._at >= pause

    def advance(self, count: int, note: str | None = None) -> None:
        """Count `count` more as done; `note` replaces the former one."""
        self._count += count
        due = self.due
        if note is not None:
            self.note = note
        self._bar.update(count)
        if due:
            self._at = time.monotonic()
            self._bar.set_postfix_str(self.note)
            if not self._live:
                self._print()

    def close(self) -> None:
        """End the line; without a terminal, say where the job stands unless that was the last."""
        self._bar.set_postfix_str(self.note, refresh=False)
        self._bar.close()
        if self.shown and not self._live and self._shown != self._count:
            self._print()

    def _print(self) -> None:
        self._shown = self._count
        title = f"{self._title}: " if self._title else ""
        parts = [
            f"{title}{self._count:,} of {self._total:,} {self._unit}",
            self._left(),
            self.note,
        ]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def _left(self) -> str:
        done, spent = self._count - self._initial, time.monotonic() - self._began
        if self._count >= self._total or not done:
            return ""
        seconds = spent / done * (self._total - self._count)
        return f"{tqdm.format_interval(seconds)} left"
