"""Means of the loss terms over steps and ranks, reported at intervals."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.display import Display
from sdevid.train.record.metrics_file import append, forget_after
from sdevid.train.record.metrics_sinks import Figures, open_sinks
from sdevid.train.summary.utilization import utilization_on
from sdevid.train.world import World

Item = TypeVar("Item")
# Of the terms, those that the display shows.
_SHOWN = ("loss", "reconstruction", "kl_path", "kl_birth", "kl_initial", "kl_content", "bridge")


class Metrics:
    """Means of the terms between two flushes, over steps and ranks.

    Sums stay on the device until `flush`, so that no step waits for the host. `waited` is the time
    in seconds spent waiting for data since then. A context manager: closes what it opened.
    """

    def __init__(self, config: Config, world: World, progress: Progress, total: int) -> None:
        self.config, self.world = config, world
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._steps, self._skipped, self.waited = 0, 0, 0.0
        self.saved = progress.step  # step of the newest checkpoint, for the display
        self._flushed_at, self._since = progress.clips, time.perf_counter()
        self._path = config.run_dir / "metrics.jsonl"
        self._unwritten = ""  # lines that a full disk did not take yet
        self._sinks = open_sinks(config, progress) if world.main else []
        self._utilization = utilization_on(world.device, config)
        if world.main:
            forget_after(self._path, progress.clips)
        self._shown = ""  # means, as the display told them last
        self._display = Display(total, "clips", initial=progress.clips, shown=world.main)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.note = self._with_saved() if self._shown else ""
        self._display.close()
        if self._unwritten:
            self._write()
        for sink in self._sinks:
            sink.close()

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; time spent waiting for each counts as waiting for data."""
        iterator = iter(items)
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield item

    def add(self, terms: dict[str, Tensor], *, skipped: bool = False) -> None:
        """Add the terms of one step; of a skipped one only the skip is counted."""
        self._names = list(terms)
        self._steps, self._skipped = self._steps + 1, self._skipped + skipped
        if not skipped:
            values = torch.stack([term.detach().float() for term in terms.values()])
            self._sum = values if self._sum is None else self._sum + values
        self._display.advance(self.config.batch_size, self._note() if self._display.due else None)

    def _note(self) -> str:
        """Format this rank's means since the last flush in a line; waits for the device."""
        terms: dict[str, float] = {}
        if self._sum is not None:
            means = self._sum.cpu() / max(1, self._steps - self._skipped)
            terms = dict(zip(self._names, means.tolist(), strict=True))
        done, spent = self._steps * self.config.batch_size, max(self.elapsed, 1e-9)
        rates = f"{done / spent:.3g} clips/s, waiting {100 * self.waited / spent:.0f} %"
        shown = [f"{n.replace('_', ' ')} {terms[n]:.4g}" for n in _SHOWN if n in terms]
        self._shown = ", ".join([*shown[:1], rates, *shown[1:]])
        return self._with_saved()

    def _with_saved(self) -> str:
        saved = f"saved step {self.saved:,}" if self.saved else "not saved yet"
        return f"{saved}, {self._shown}"

    @property
    def elapsed(self) -> float:
        """Seconds since the last flush."""
        return time.perf_counter() - self._since

    def flush(self, progress: Progress, rates: Figures) -> Figures:
        """Report the means since the last flush, with `rates` as they stand. Every rank calls it.

        Skipped steps are counted and left out of the means; if all were, there are none (null).
        """
        assert self._steps, "flush follows add"
        now = time.perf_counter()
        spent = now - self._since
        if self._display.shown:
            self._display.note = self._note()
        total = torch.full((len(self._names),), math.nan) if self._sum is None else self._sum.cpu()
        terms = total.double() / max(1, self._steps - self._skipped)
        own = torch.cat([terms, torch.tensor([self.waited / spent])])
        means = dict(zip([*self._names, "data_wait"], self.world.mean(own).tolist(), strict=True))
        clips_per_s = (progress.clips - self._flushed_at) / spent
        figures = means | rates | {"clips_per_s": clips_per_s, "steps_per_s": self._steps / spent}
        if self._utilization is not None:
            figures["mfu"] = self._utilization.share(clips_per_s, self.world.size)
        figures["skipped"] = self._skipped
        self._sum, self._steps, self._skipped, self.waited = None, 0, 0, 0.0
        self._flushed_at, self._since = progress.clips, now
        if self.world.main:
            self._report(progress, figures)
        return figures

    def _report(self, progress: Progress, figures: Figures) -> None:
        finite = {n: v if math.isfinite(v) else None for n, v in figures.items()}
        line = {"clips": progress.clips, "step": progress.step, "time": time.time(), **finite}
        self._unwritten += json.dumps(line) + "\n"
        self._write()
        for sink in self._sinks:
            sink.write(progress.clips, figures)

    def _write(self) -> None:
        """Append the lines at hand, or keep them until the disk takes them."""
        try:
            append(self._path, self._unwritten)
            self._unwritten = ""
        except OSError as error:
            kept = self._unwritten.count("\n")
            self.world.say(
                f"warning: {self._path} cannot be written ({error}); lines kept for later: {kept}",
                "warning",
            )
