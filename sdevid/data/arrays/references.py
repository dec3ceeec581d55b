"""What a file of arrays takes from elsewhere: HDF5 links, external storage, virtual data, symlinks.

A file may come from a stranger; reading it must not read another file of this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REMEDY = "write it whole into one file, e.g. by h5repack"


def of_hdf5(path: Path) -> str | None:
    """Name the first part of an HDF5 or netCDF-4 file that lies in another file, or None."""
    import h5py

    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path, "r") as file:
        outside = next(_outside(h5py, file), None)
    return None if outside is None else f"{outside}, which is not followed; {_REMEDY}"


def _outside(h5py: Any, file: Any) -> Iterator[str]:
    pending, seen = [file], set()
    while pending:
        group = pending.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:  # groups may hold each other
            continue
        seen.add(place)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield f"{group.name}/{name} is a link into {link.filename}"
            elif isinstance(link, h5py.HardLink):
                held = group[name]
                if isinstance(held, h5py.Group):
                    pending.append(held)
                elif isinstance(held, h5py.Dataset):
                    yield from _stored_elsewhere(held)


def _stored_elsewhere(dataset: Any) -> Iterator[str]:
    for name, *_ in dataset.external or ():
        yield f"{dataset.name} is stored in {name}"
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                yield f"{dataset.name} is put together from {source.file_name}"


def of_zarr(path: Path) -> str | None:
    """Name the first symbolic link in a Zarr folder that leads out of it, or None."""
    root = path.resolve()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            part = Path(folder) / name
            if part.is_symlink() and not part.resolve().is_relative_to(root):
                return f"{part.relative_to(path)} is a link out of it, which is not followed"
    return None
