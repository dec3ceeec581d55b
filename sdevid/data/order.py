"""The order of clips: a pure function of the seed and of a serial, with shuffling that keeps reads
local.

In each epoch the shards are shuffled and dealt into windows of a few shards, and the clips of a
window are shuffled among themselves. So whoever reads a stretch of an epoch touches the shards of
one window or two, and finding a clip takes memory and time of one window (and of the list of
shards), not of all clips.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
from jaxtyping import Int64

_SHARDS = np.uint64(0x5348415244)  # sets hashes of shards apart from those of clips
_KEPT = 4  # windows, and layouts of an epoch: ranks and threads are close together

Numbers = Int64[np.ndarray, " clips"]


class Order:
    """Which clip of an index a serial stands for, epoch after epoch. Safe from several threads.

    `sizes` are the clips of each shard, in the order of the index; a window is at most `window`
    shards. With as many shards or fewer, an epoch is a permutation of all clips, uniform over
    seeds and epochs up to the hash.
    """

    def __init__(self, sizes: Sequence[int], seed: int, window: int) -> None:
        self._first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # clip of a shard
        self._size, self._seed, self._window = int(self._first[-1]), seed, window
        self._layout = lru_cache(_KEPT)(self._laid_out)
        self.shuffled = lru_cache(_KEPT)(self._shuffle)

    def __len__(self) -> int:
        return self._size

    def clip(self, serial: int) -> int:
        """Return the number of the clip at place `serial` in the sequence of all epochs."""
        epoch, place = divmod(serial, self._size)
        starts, _ = self._layout(epoch)
        number = bisect_right(starts, place) - 1
        return int(self.shuffled(epoch, number)[place - starts[number]])

    def _laid_out(self, epoch: int) -> tuple[list[int], list[Numbers]]:
        """Compute where each window of an epoch begins, and its shards."""
        shards = len(self._first) - 1
        shuffled = _by_hash(_mix(_start(self._seed, epoch) ^ _SHARDS), np.arange(shards))
        windows = np.array_split(shuffled, -(-shards // self._window))
        sizes = np.diff(self._first)
        lengths = [int(sizes[window].sum()) for window in windows]
        return list(accumulate(lengths[:-1], initial=0)), windows

    def _shuffle(self, epoch: int, number: int) -> Numbers:
        """Shuffle the clips of a window."""
        shards = np.sort(self._layout(epoch)[1][number])
        clips = [np.arange(self._first[shard], self._first[shard + 1]) for shard in shards]
        return _by_hash(_start(self._seed, epoch), np.concatenate(clips))


def _by_hash(start: np.ndarray, numbers: Numbers) -> Numbers:
    """Sort `numbers` by their hash, keyed by `start`.

    The hash is splitmix64's finalizer (Steele, Lea & Flood 2014), so the order stays the same
    under any version of any library.
    """
    return numbers[np.argsort(_mix(start + numbers.astype(np.uint64)), kind="stable")]


def _start(seed: int, epoch: int) -> np.ndarray:
    return _mix(_mix(np.array([seed], np.uint64)) + np.uint64(epoch))


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
