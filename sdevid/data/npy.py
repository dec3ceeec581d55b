"""npy files in memory, read without trust: plain numbers alone, as many as there are bytes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

_KINDS = "uifb"  # numpy's kinds of plain numbers: no objects, texts, records
_MOST_HEADER = 4_096  # bytes


def write_npy(array: np.ndarray[Any, Any]) -> bytes:
    """Encode `array` in C order as the bytes of an npy file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_npy(content: bytes) -> np.ndarray[Any, Any]:
    """Decode the array in the bytes of an npy file, without a copy where it lies in C order.

    Raises ValueError where they hold anything else, or more or less than the header says.
    """
    values, end = npy_at(memoryview(content), 0)
    if end != len(content):
        raise ValueError(
            f"{len(content) - end} bytes follow those of {values.dtype} {values.shape}"
        )
    return values


def npy_at(content: memoryview, place: int) -> tuple[np.ndarray[Any, Any], int]:
    """Decode the npy that begins at `place`, without a copy; return the array and where it ends.

    Raises ValueError where the bytes from there on hold anything else.
    """
    buffer = io.BytesIO(content[place : place + 2 * _MOST_HEADER])
    version = np.lib.format.read_magic(buffer)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"npy of version {version}")
    try:
        shape, fortran, dtype = read(buffer, max_header_size=_MOST_HEADER)
    except Exception as error:  # numpy parses it as Python, which can fail in many ways
        raise ValueError(f"its npy header does not read ({type(error).__name__})") from error
    if dtype.kind not in _KINDS or any(not 0 <= side <= len(content) for side in shape):
        raise ValueError(f"it holds {dtype} {shape}, not plain numbers")
    start = place + buffer.tell()
    end = start + math.prod(shape) * dtype.itemsize
    if end > len(content):
        raise ValueError(f"it holds {len(content) - start} bytes, not those of {dtype} {shape}")
    values = np.frombuffer(content[start:end], dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape), end
