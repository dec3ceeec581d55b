"""Philox4x32-10 on the CPU: counters to random words, words to normals.

The same words as Triton's `tl.philox` for 32-bit counters and a 64-bit seed (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"). numpy, because a draw for a whole path is then a
hundred cheap calls on a block that stays in the cache.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]  # 32-bit words, one a 64-bit place
Normals = npt.NDArray[np.float32]

LANES = 4  # words a counter
_BLOCK = 4096  # counters at a time: the work space then stays in the second-level cache
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_EVEN, _ODD = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)


@functools.lru_cache(maxsize=8)
def _round_keys(seed: int) -> tuple[tuple[np.uint64, np.uint64], ...]:
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    return tuple(
        (
            np.uint64(low + i * 0x9E3779B9 & 0xFFFFFFFF),
            np.uint64(high + i * 0xBB67AE85 & 0xFFFFFFFF),
        )
        for i in range(10)
    )


def words(seed: int, c0: Words, c1: Words, c2: Words, c3: Words) -> tuple[Words, ...]:
    """Four words for each counter (c0, c1, c2, c3), all of one shape, in the order of the lanes."""
    a, b, c, d = c0, c1, c2, c3
    for k0, k1 in _round_keys(seed):
        odd, even = c * _ODD, a * _EVEN
        a = odd >> _HALF
        a ^= b
        a ^= k0
        a &= _MASK
        c = even >> _HALF
        c ^= d
        c ^= k1
        c &= _MASK
        b, d = odd, even
    b &= _MASK
    d &= _MASK
    return a, b, c, d


def fill_normals(out: Normals, seed: int, index: Words, c2: Words, c3: Words) -> None:
    """Standard normals into `out` (counters, 4) for the 64-bit `index` (c0 low, c1 high).

    Box-Muller on lanes (0, 1) and (2, 3): radius from the even lane, angle from the odd one.
    """
    for start in range(0, len(index), _BLOCK):
        part = slice(start, start + _BLOCK)
        lanes = words(seed, index[part] & _MASK, index[part] >> _HALF, c2[part], c3[part])
        for even in (0, 2):
            radius = lanes[even].astype(np.float32)
            radius *= np.float32(2**-32)
            radius += np.float32(2**-33)  # in (0, 1]
            np.log(radius, out=radius)
            radius *= np.float32(-2)
            np.sqrt(radius, out=radius)
            angle = lanes[even + 1].astype(np.float32)
            angle *= np.float32(2 * np.pi * 2**-32)
            np.multiply(radius, np.cos(angle), out=out[part, even])
            np.multiply(radius, np.sin(angle), out=out[part, even + 1])
