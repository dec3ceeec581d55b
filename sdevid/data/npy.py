"""npy files in memory, read without trust: plain numbers alone, as many as there are bytes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

_KINDS = "uifb"  # numpy's kinds of plain numbers: no objects, texts, records
_MOST_HEADER = 4_096  # bytes


def read_npy(content: bytes) -> np.ndarray[Any, Any]:
    """The array in the bytes of an npy file, without a copy where it lies in C order.

    Raises ValueError where they hold anything else, or more or less than the header says.
    """
    buffer = io.BytesIO(content)
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
    start = buffer.tell()
    if dtype.kind not in _KINDS or any(side < 0 for side in shape):
        raise ValueError(f"it holds {dtype} {shape}, not plain numbers")
    if len(content) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it holds {len(content) - start} bytes, not those of {dtype} {shape}")
    values = np.frombuffer(content, dtype, offset=start)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
