"""Which rank holds the others up."""

from __future__ import annotations

import functools
import statistics
import time
from types import TracebackType
from typing import Any, cast

import torch

from sdevid.train.world import World, node_name

_LEAST = 1.0  # seconds behind the others since the last line: less is noise
_LEAST_SHARE = 0.02  # of the time since then: less is not worth a line


class OwnTime:
    """Seconds that this rank spends in the parts of a step that it enters this context for.

    On a GPU the time between two events, read when asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds, self._since = 0.0, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._on_gpu:
            event = functools.partial(cast(Any, torch.cuda.Event), enable_timing=True)
            self._events.append((event(), event()))
            self._events[-1][0].record()
        self._since = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_gpu:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._since

    def take(self) -> float:
        """Read the seconds since the last call."""
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000
        taken, self._seconds, self._events = self._seconds, 0.0, []
        return taken


def slowest(world: World, seconds: float, elapsed: float, ratio: float) -> dict[str, float]:
    """Compare the ranks' own `seconds` of the `elapsed` for the same steps; every rank calls it.

    A step lasts equally long on all ranks, so what counts is the time before they meet: waiting for
    data, and the forward pass. Under ZeRO 3 that pass meets others too, and only a rank that
    waits for data stands out. A rank of more than `ratio` times the median of the others is named
    in a line where that is a second or more, and no trifle beside `elapsed`. Returns `slow_rank`
    and `slow_ratio`, nothing where there is one rank.
    """
    if world.size == 1 or not ratio:
        return {}
    times: list[tuple[float, str]] = world.gather((seconds, node_name()))
    rank = max(range(world.size), key=lambda r: times[r][0])
    own, node = times[rank]
    others = statistics.median(s for r, (s, _) in enumerate(times) if r != rank)
    measured = own / max(others, 1e-9)
    if measured > ratio and own - others > max(_LEAST, _LEAST_SHARE * elapsed):
        world.say(
            f"rank {rank} on node {node} is slow: {measured:.1f} times the others' time for data "
            f"and forward pass ({own:.2f} s against {others:.2f} s since the last line of metrics)",
            "warning",
        )
    return {"slow_rank": float(rank), "slow_ratio": measured}
