"""One array of an HDF5 file as a stack of frames, with the times that stand beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdevid.data.arrays import file_times
from sdevid.data.arrays.stack import EXTRA, Array, ArrayShape, Stack, missing_array, whole
from sdevid.errors import UserError


def open_hdf5(path: Path, variable: str) -> Stack:
    """Open the array `variable`. UserError where it, or h5py, is missing."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is HDF5, which needs h5py; {EXTRA}") from error

    held: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 3:
            held.append(f"/{name}")

    with h5py.File(path, "r") as file:
        if not variable or not isinstance(file.get(variable), h5py.Dataset):
            file.visititems(note)
            raise missing_array(path, variable, held, "/path")
        array = file[variable]
        described = whole(path, ArrayShape(array.shape, array.dtype))
        scales = list(array.dims[0].values()) if array.ndim else []  # what HDF5 says its axis is
        siblings = {"time": scales[0]} if scales else dict(array.parent)
        seconds = file_times.beside(siblings, array.shape[0], file_times.path_of(path, variable))
        unit = array.attrs.get("units", "")

    def read(first: int, last: int) -> Array:
        with h5py.File(path, "r") as again:
            return whole(path, again[variable][first:last]).read(0, last - first)

    unit = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    return Stack(described.shape, described.dtype, read, seconds, unit=unit)
