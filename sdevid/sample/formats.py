"""The files that `sample --formats` names: what each needs, and how values become them."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from sdevid.errors import UserError


class Format(NamedTuple):
    """One kind of file."""

    ending: str
    package: str | None = None  # that writes it, where the plain installation lacks it
    shared: bool = False  # one file of all samples, not one a sample


FORMATS = {
    "mp4": Format("mp4"),
    "gif": Format("gif"),
    "npz": Format("npz"),
    "npy": Format("npy"),
    "tiff": Format("tif"),
    "zarr": Format("zarr", "zarr", shared=True),
    "netcdf": Format("nc", "h5netcdf", shared=True),
}
DEFAULT_FORMATS = ("mp4", "npz")


def parse(text: str) -> tuple[str, ...]:
    """Read `--formats`. UserError for an unknown name, or a package that is missing."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--formats names {name!r}, but there are {', '.join(FORMATS)}")
        package = FORMATS[name].package
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(
                f"--formats names {name}, which needs the package {package}; "
                "pip install 'sdevid[arrays]' brings it"
            )
    if not names:
        raise UserError(f"--formats names none; give some of {', '.join(FORMATS)}")
    return names


def check_colormap(name: str | None, channels: int) -> str | None:
    """Check that matplotlib has the colormap `name`, and return it.

    Raises UserError where it has not, or frames are in colour.
    """
    if name is None:
        return None
    from matplotlib import colormaps

    if name not in colormaps:
        raise UserError(
            f"--colormap is {name!r}, which matplotlib does not have; viridis, magma and turbo are "
            "some that it has"
        )
    if channels == 3:
        raise UserError(f"--colormap is {name}, but the model's frames are in colour; leave it out")
    return name
