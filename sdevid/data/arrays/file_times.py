"""When frames were, as files of arrays say it: coordinates with units, beside an array or of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid import clock
from sdevid.errors import UserError

NAMES = ("time", "times", "t", "seconds", "timestamps")  # of a coordinate of time
Seconds = NDArray[np.float64]


def in_seconds(values: NDArray[Any], units: object, what: str) -> Seconds | None:
    """Convert a coordinate of time to seconds from its first; None where it holds no times.

    Dates and durations are their own units; of numbers they are `units`, such as `minutes` or
    `hours since 2020-01-01` (none: seconds). UserError, which names `what`, for other units.
    """
    if values.ndim != 1 or not len(values):
        return None
    if values.dtype.kind in "Mm":
        return np.asarray((values - values[0]) / np.timedelta64(1, "ns"), np.float64) / 1e9
    if values.dtype.kind not in "iuf":
        return None
    name = units.decode(errors="replace") if isinstance(units, bytes) else str(units or "s")
    unit = name.split(" since ")[0].strip()
    try:
        scale = clock.interval(f"1 {unit.replace('seconds', 's')}")
    except ValueError as error:
        raise UserError(
            f"{what} has the units {name!r}, which are no unit of time here; give one such as "
            "seconds, minutes or 'hours since 2020-01-01', or leave it out and give --interval"
        ) from error
    return np.asarray(values - values[0], np.float64) * scale


def beside(siblings: Mapping[str, Any], frames: int, what: str) -> Seconds | None:
    """Find the times of `frames` frames among the arrays `siblings` of a group, by their names.

    Their attribute `units` says in what. None where there are none of that length.
    """
    for name, held in siblings.items():
        if name.lower() in NAMES and getattr(held, "shape", None) == (frames,):
            return in_seconds(np.asarray(held[:]), held.attrs.get("units"), f"{what}: {name}")
    return None


def of_tiff(file: Any, frames: int) -> Seconds | None:
    """Read the interval that ImageJ or OME metadata of a TIFF state; None where they state none."""
    interval = _imagej(file.imagej_metadata) or _ome(file.ome_metadata)
    return None if interval is None else np.arange(frames, dtype=np.float64) * interval


def _imagej(metadata: Any) -> float | None:
    interval = (metadata or {}).get("finterval")
    unit = (metadata or {}).get("tunit", "s")
    return _interval(interval, unit)


def _ome(metadata: Any) -> float | None:
    if not metadata:
        return None
    import tifffile

    described = tifffile.xml2dict(metadata).get("OME", {}).get("Image", {})
    image = described[0] if isinstance(described, list) else described
    pixels = image.get("Pixels", {})
    return _interval(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))


def _interval(value: Any, unit: str) -> float | None:
    try:
        return clock.interval(f"{float(value)!r} {unit}")
    except (TypeError, ValueError):  # none, zero, or a unit of no time: --interval is asked for
        return None


def path_of(path: Path, variable: str) -> str:
    """Name an array of a file for a sentence."""
    return f"{path}:{variable}" if variable else str(path)
