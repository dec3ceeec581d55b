"""Writes samples as arrays in the source's units: npy and TIFF stacks, Zarr and NetCDF.

Axes of npy are those of a cut: time, height, width, channels. Zarr and NetCDF hold all samples in
one variable `video` (sample[, ensemble_member], time, channel, y, x), futures of the same frames
being members, with the time in seconds from the first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]  # (time, height, width, channels)


class ArrayLayout(NamedTuple):
    """Axes and meaning of the samples of one job."""

    leading: dict[str, int]  # sample, and for futures ensemble_member
    seconds: NDArray[np.float64]  # of the frames
    channels: tuple[str, ...]
    unit: str
    attributes: Mapping[str, str]

    def shape(self, video: Values) -> dict[str, int]:
        """Return every axis and its length, for samples like `video`."""
        time, height, width, channels = video.shape
        return self.leading | {"time": time, "channel": channels, "y": height, "x": width}


def npy(path: Path, video: Values) -> None:
    """Write one sample as an array (time, height, width, channels)."""
    np.save(path, np.ascontiguousarray(video), allow_pickle=False)


def tiff(path: Path, video: Values, fps: float, unit: str) -> None:
    """Write one sample as a stack of pages: 16 bit for integers, 32 bit for other numbers."""
    import tifffile

    pages = np.moveaxis(video, 3, 1)
    pages = pages.astype(np.uint16 if pages.dtype.kind == "u" else np.float32)
    about = {"axes": "TCYX", "finterval": 1 / fps, "fps": fps, "values": unit}
    tifffile.imwrite(path, pages, imagej=True, metadata=about)


def zarr(path: Path, layout: ArrayLayout, videos: Iterable[Values]) -> None:
    """Write all samples as a Zarr group; one chunk a sample."""
    import zarr as store

    group = store.open_group(path, mode="w", attributes=dict(layout.attributes))
    target = None
    for place, video in zip(np.ndindex(*layout.leading.values()), videos, strict=True):
        if target is None:
            axes = layout.shape(video)
            for name, (values, about) in _coordinates(layout, axes).items():
                group.create_array(
                    name, data=values, dimension_names=[name], attributes=dict(about)
                )
            target = group.create_array(
                "video",
                shape=tuple(axes.values()),
                chunks=(*(1 for _ in layout.leading), *list(axes.values())[-4:]),
                dtype=video.dtype,
                dimension_names=list(axes),
                attributes={"units": layout.unit},
            )
        target[place] = np.moveaxis(video, 3, 1)


def netcdf(path: Path, layout: ArrayLayout, videos: Iterable[Values]) -> None:
    """Write all samples as a NetCDF-4 file; one chunk a sample."""
    import h5netcdf

    with h5netcdf.File(path, "w") as file:
        file.attrs.update(layout.attributes)
        target = None
        for place, video in zip(np.ndindex(*layout.leading.values()), videos, strict=True):
            if target is None:
                axes = layout.shape(video)
                file.dimensions = axes
                for name, (values, about) in _coordinates(layout, axes).items():
                    variable = file.create_variable(name, (name,), values.dtype, data=values)
                    variable.attrs.update(about)
                chunks = (*(1 for _ in layout.leading), *list(axes.values())[-4:])
                target = file.create_variable("video", tuple(axes), video.dtype, chunks=chunks)
                target.attrs["units"] = layout.unit
            target[place] = np.moveaxis(video, 3, 1)


def _coordinates(
    layout: ArrayLayout, axes: Mapping[str, int]
) -> dict[str, tuple[NDArray[Any], dict[str, str]]]:
    """Compute values and attributes of each axis; channels are numbered, names an attribute."""
    coordinates: dict[str, tuple[NDArray[Any], dict[str, str]]] = {
        name: (np.arange(length), {}) for name, length in axes.items()
    }
    coordinates["time"] = (layout.seconds, {"long_name": "seconds from the first frame"})
    coordinates["channel"] = (np.arange(axes["channel"]), {"names": ", ".join(layout.channels)})
    return coordinates
