"""Philox4x32-10 on the CPU: counters to random words, words to normals.

The same words as Triton's `tl.philox` for 32-bit counters and a 64-bit seed (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). numpy, because a draw for a whole path is then a
hundred cheap calls on a block that stays in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Counters = npt.NDArray[np.uint64]  # 32-bit words too, one a 64-bit counter
Normals = npt.NDArray[np.float32]

LANES = 4  # words a counter
_BLOCK = 16384  # counters at a time: the work space then stays in the caches
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_FACTORS = np.array([[0xCD9E8D57], [0xD2511F53]], np.uint64)  # of lanes 2 and 0


@functools.lru_cache(maxsize=8)
def _round_keys(seed: int) -> Counters:
    """Compute the keys of the ten rounds: (rounds, 2, 1)."""
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    steps = range(10)
    keys = [(low + i * 0x9E3779B9, high + i * 0xBB67AE85) for i in steps]
    return np.array([[k & 0xFFFFFFFF for k in pair] for pair in keys], np.uint64)[..., None]


def _halves(words: Counters) -> tuple[Words, Words]:
    """View the low and the high 32 bits; little-endian machines only."""
    halves = words.view(np.uint32)
    return halves[:, ::2], halves[:, 1::2]


class _Work:
    """Room for the rounds over one block. Rows hold lanes 0 and 2 (`first`), 1 and 3 (`second`)."""

    def __init__(self, counters: int) -> None:
        self.first, self.second, self.product = np.empty((3, 2, counters), np.uint64)
        self.radius, self.angle, self.turn = np.empty((3, 2, counters), np.float32)

    def run(self, seed: int, index: Counters, c2: Counters, c3: Counters) -> Words:
        """Run the rounds: lanes 0 and 2 stay in `first`; return a view of lanes 1 and 3."""
        np.bitwise_and(index, _MASK, out=self.first[0])
        np.right_shift(index, _HALF, out=self.second[0])
        self.first[1], self.second[1] = c2, c3
        crossed = self.first[::-1]
        low = _halves(self.first)[0]  # the high halves stay 0
        old, new = ((x, *_halves(x)) for x in (self.second, self.product))
        for keys in _round_keys(seed):
            np.multiply(crossed, _FACTORS, out=new[0])
            np.bitwise_xor(new[2], old[1], out=low)
            np.bitwise_xor(self.first, keys, out=self.first)
            old, new = new, old
        return old[1]


def words(seed: int, index: Counters, c2: Counters, c3: Counters) -> Words:
    """Compute words (counters, 4) for each counter (index low, index high, c2, c3)."""
    out = np.empty((len(index), LANES), np.uint32)
    for part, work, second in _blocks(seed, index, c2, c3):
        out[part, ::2], out[part, 1::2] = work.first.T, second.T
    return out


def normals(
    seed: int, index: Counters, c2: Counters, c3: Counters, deviation: float = 1.0
) -> Normals:
    """Draw normals (counters, 4) of mean 0 for each counter (index low, index high, c2, c3).

    Box-Muller on lanes (0, 1) and (2, 3): the radius from the upper 31 bits of the even lane, as a
    number in (0, 1], the angle in [-pi, pi] from the odd lane, signed.
    """
    out = np.empty((len(index), LANES), np.float32)
    stretch = np.float32(-2 * deviation**2)
    for part, work, second in _blocks(seed, index, c2, c3):
        radius, angle = work.radius, work.angle
        np.right_shift(work.first, _ONE, out=work.first)
        np.copyto(radius, work.first, casting="same_kind")
        radius *= np.float32(2**-31)
        radius += np.float32(2**-32)
        np.log(radius, out=radius)
        radius *= stretch
        np.sqrt(radius, out=radius)
        np.copyto(angle, second.view(np.int32), casting="same_kind")
        angle *= np.float32(2 * np.pi * 2**-32)
        cosine = np.cos(angle, out=work.turn)
        np.multiply(radius, cosine, out=out[part, ::2].T)
        np.sin(angle, out=angle)
        np.multiply(radius, angle, out=out[part, 1::2].T)
    return out


def _blocks(
    seed: int, index: Counters, c2: Counters, c3: Counters
) -> Iterator[tuple[slice, _Work, Words]]:
    work = _Work(min(len(index), _BLOCK))
    for start in range(0, len(index), _BLOCK):
        part = slice(start, start + _BLOCK)
        if len(index) - start < work.first.shape[1]:
            work = _Work(len(index) - start)
        yield part, work, work.run(seed, index[part], c2[part], c3[part])
