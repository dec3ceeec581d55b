"""Variables of NetCDF and Zarr over time and two more axes, each a channel of one stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdevid.data.arrays import file_times
from sdevid.data.arrays.stack import EXTRA, Array, ArrayShape, Stack, missing_array, whole
from sdevid.errors import UserError

_TIME = (*file_times.NAMES, "frame", "frames")  # names of an axis of time


def open_fields(path: Path, variable: str) -> Stack:
    """Open the variables named with commas in `variable`, or the first over three axes.

    UserError where one is missing, where they differ in shape, or xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise UserError(f"{path} needs xarray and its backends; {EXTRA}") from error

    try:
        opened = xarray.open_zarr(path) if path.suffix == ".zarr" else xarray.open_dataset(path)
    except ImportError as error:
        raise UserError(f"{path} needs a package that is not here ({error}); {EXTRA}") from error
    except (KeyError, ValueError, TypeError, FileNotFoundError):
        if path.suffix != ".zarr":
            raise
        return _plain_zarr(path, variable)  # its axes have no names, as xarray wants them
    return _variables(path, opened, variable)


def _variables(path: Path, opened: Any, variable: str) -> Stack:
    usable = [name for name, held in opened.data_vars.items() if held.ndim >= 3]
    chosen = [name for name in variable.split(",") if name] or usable[:1]
    missing = [name for name in chosen if name not in opened.data_vars]
    if missing or not chosen:
        raise UserError(
            f"{path} has no variable {', '.join(missing) or 'over time and two axes'}; it holds "
            f"{', '.join(map(str, opened.data_vars))}: name one after a colon, {path}:NAME"
        )
    time = _time_axis(opened, opened[chosen[0]])
    arrays = [_ordered(opened[name], time) for name in chosen]
    if any(held.shape != arrays[0].shape for held in arrays):
        raise UserError(
            f"{path}: {', '.join(chosen)} differ in shape, but are channels of one field"
        )
    stacks = [whole(path, ArrayShape(held.shape, held.dtype), last=True) for held in arrays]
    kept = "float32" if len({stack.dtype for stack in stacks}) > 1 else stacks[0].dtype

    def read(first: int, last: int) -> Array:
        parts = [
            whole(path, held[first:last].to_numpy(), last=True).read(0, last - first)
            for held in arrays
        ]
        return np.concatenate(parts, axis=3).astype(kept)

    channels = sum(stack.shape[3] for stack in stacks)
    seconds = None
    if time in opened.coords:
        units = opened[time].attrs.get("units")
        seconds = file_times.in_seconds(opened[time].to_numpy(), units, f"{path}: {time}")
    return Stack(
        (*stacks[0].shape[:3], channels),
        kept,
        read,
        seconds,
        tuple(chosen) if channels == len(chosen) else (),
        str(arrays[0].attrs.get("units", "")),
    )


def _time_axis(opened: Any, held: Any) -> str:
    """Find the axis of time: one of dates, or one called so, or else the first."""
    for axis in map(str, held.dims):
        if axis in opened.coords and opened[axis].dtype.kind in "Mm":
            return axis
    return next((axis for axis in map(str, held.dims) if axis.lower() in _TIME), str(held.dims[0]))


def _ordered(held: Any, time: str) -> Any:
    """Bring the axes of a variable into the order time, rows, columns, and then channels.

    Of four axes the one that is no place by its name, such as a level, is that of channels.
    """
    rest = [axis for axis in held.dims if axis != time]
    if time not in held.dims or len(rest) != 3:
        return held.transpose(time, ...) if time in held.dims else held
    channel = next((axis for axis in rest if not _is_place(str(axis))), rest[0])
    return held.transpose(time, *[axis for axis in rest if axis != channel], channel)


def _is_place(axis: str) -> bool:
    return axis.lower() in ("y", "x", "lat", "lon", "latitude", "longitude", "row", "column") or (
        axis.lower().startswith(("lat", "lon", "south", "west", "north", "east", "rlat", "rlon"))
    )


def _plain_zarr(path: Path, variable: str) -> Stack:
    """Open one array of a Zarr folder whose axes have no names; a `time` may stand beside it."""
    import zarr

    opened: Any = zarr.open(str(path), mode="r")
    siblings: dict[str, Any] = {}
    if isinstance(opened, zarr.Group):
        siblings = dict(opened.arrays())
        usable = [name for name, held in siblings.items() if held.ndim >= 3]
        name = variable or (usable[0] if len(usable) == 1 else "")
        if name not in siblings:
            raise missing_array(path, variable, usable, "NAME")
        opened = siblings[name]
    described = whole(path, ArrayShape(opened.shape, opened.dtype))

    def read(first: int, last: int) -> Array:
        return whole(path, np.asarray(opened[first:last])).read(0, last - first)

    seconds = file_times.beside(siblings, opened.shape[0], str(path))
    unit = str(opened.attrs.get("units", ""))
    return Stack(described.shape, described.dtype, read, seconds, unit=unit)
