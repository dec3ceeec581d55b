"""Opens a stack of frames: .npy, .npz, TIFF, HDF5, NetCDF, Zarr, or a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.data.arrays import file_times, references
from sdevid.data.spec import BadVideoError
from sdevid.errors import UserError

PICTURES = frozenset([".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm"])
FIELDS = frozenset([".nc", ".nc4", ".zarr"])  # by xarray
ANIMATION = ".webp"  # which FFmpeg does not decode
ARRAYS = frozenset([".npy", ".npz", ".tif", ".tiff", ".h5", ".hdf5"]) | FIELDS
TYPES = ("uint8", "uint16", "float16", "float32")
MOST_CHANNELS = 64
EXTRA = "pip install 'sdevid[arrays]'"

Array = NDArray[Any]


@dataclass(frozen=True)
class Stack:
    """Frames in order of time: `read(first, last)` gives (time, height, width, channels)."""

    shape: tuple[int, int, int, int]
    dtype: str  # one of TYPES
    read: Callable[[int, int], Array]
    seconds: NDArray[np.float64] | None = None  # of each frame, where the file tells
    channel_names: tuple[str, ...] = ()
    unit: str = ""


def split_location(location: Path) -> tuple[Path, str | None]:
    """Split `file.h5:/path` into file and variable."""
    if location.exists():
        return location, None
    path, colon, variable = str(location).rpartition(":")
    return (Path(path), variable) if colon and Path(path).exists() else (location, None)


def is_stack(path: Path) -> bool:
    """Tell whether a TIFF holds several frames; a damaged one counts, and opening it says why."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False

    try:
        with open_tiff(path) as file:
            shape, axes = file.series[0].shape, file.series[0].axes
    except Exception:  # whatever tifffile makes of bytes of any origin
        return True  # damaged, which opening it says
    return len(shape) > 3 or (len(shape) == 3 and axes[-1] not in "SC")


def names(path: Path, variable: str | None) -> list[str]:
    """List what a file holds: the arrays of an .npz, else one entry, the variable."""
    if path.suffix.lower() != ".npz" or variable:
        return [variable or ""]
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        return list(archive.files)


def open_stack(path: Path, variable: str, *, alone: bool = False) -> Stack:
    """Open the stack of frames at `path`; where `alone`, a picture is a stack of one frame.

    Raises BadVideoError where it does not read or holds no stack of frames, UserError where the
    variable or a package is missing.
    """
    with _reading(path):
        if alone:
            return _pictures([path])
        if path.is_dir() and path.suffix.lower() != ".zarr":
            return _pictures(pictures(path))
        ending = path.suffix.lower()
        _check_inside(path)
        if ending in FIELDS:
            from sdevid.data.arrays.fields import open_fields  # not above: it imports from here

            return open_fields(path, variable)
        if ending in (".h5", ".hdf5"):
            from sdevid.data.arrays.hdf5 import open_hdf5

            return open_hdf5(path, variable)
        if ending == ANIMATION:
            return _animation(path)
        if ending == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return whole(path, archive[variable])
        if ending == ".npy":
            return whole(path, np.load(path, mmap_mode="r", allow_pickle=False))
        return _tiff(path)


def _check_inside(path: Path) -> None:
    """Raise BadVideoError where reading a file of arrays would read another local file."""
    outside = None
    if path.suffix.lower() == ".zarr":
        outside = references.of_zarr(path)
    elif path.suffix.lower() in (".nc", ".nc4", ".h5", ".hdf5") and find_spec("h5py"):
        outside = references.of_hdf5(path)
    if outside:
        raise BadVideoError(outside)


class _reading:  # noqa: N801
    """Turns any error of a reader into BadVideoError; UserError passes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, BadVideoError | UserError) or not isinstance(error, Exception):
            return
        # whatever a reader makes of bytes of any origin
        raise BadVideoError(f"does not read ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class ArrayShape:
    """Shape and type of an array, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def missing_array(path: Path, variable: str, usable: list[str], example: str) -> UserError:
    """Say that a file holds no array `variable`, what it holds, and how to name one."""
    return UserError(
        f"{path} has no array {variable or 'named'}; it holds "
        f"{', '.join(usable[:20]) or 'none of three axes'}: give one after a colon, "
        f"{path}:{usable[0] if usable else example}"
    )


def whole(path: Path, array: Any, *, last: bool | None = None) -> Stack:
    """Wrap an array (time, height, width), with channels last or after time, as a stack.

    `last` says where channels are; None: where the two other axes are alike, or else the shorter.
    """
    if array.ndim == 4 and last is None:
        last = _channels_last(array.shape)
    if array.ndim == 3:
        move: Callable[[Array], Array] = lambda part: part[..., None]  # noqa: E731
        shape = (*array.shape, 1)
    elif array.ndim == 4 and last and array.shape[3] <= MOST_CHANNELS:
        move, shape = (lambda part: part), array.shape
    elif array.ndim == 4 and not last and array.shape[1] <= MOST_CHANNELS:
        move = lambda part: np.moveaxis(part, 1, 3)  # noqa: E731
        shape = (array.shape[0], array.shape[2], array.shape[3], array.shape[1])
    else:
        raise UserError(
            f"{path} holds an array of shape {array.shape}, but a stack of frames has the axes "
            f"time, height, width and at most {MOST_CHANNELS} channels; save it so"
        )
    kept = _type(path, array.dtype)
    return Stack(
        shape,
        kept,
        lambda first, end: np.ascontiguousarray(move(np.asarray(array[first:end])).astype(kept)),
    )


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Tell whether the last of four axes is that of channels, and not the one after time."""
    _, first, middle, last = shape
    if first == middle or first > MOST_CHANNELS:
        return True
    return middle != last and last <= first


def _type(path: Path, dtype: np.dtype[Any]) -> str:
    if dtype.name in TYPES:
        return dtype.name
    if dtype.kind == "f":
        return "float32"
    if (dtype.kind in "iu" and dtype.itemsize <= 2) or dtype.kind == "b":
        return "uint8" if dtype.itemsize == 1 and dtype.kind != "i" else "float32"
    if dtype.kind in "iu":
        return "float32"
    raise UserError(f"{path} holds {dtype}, but values must be numbers; save them as float32")


def _tiff(path: Path) -> Stack:
    with open_tiff(path) as file:
        series = file.series[0]
        axes, array = series.axes, series.asarray()
        samples = axes[-1] in "SC"
        if array.ndim < 3 or (array.ndim == 3 and samples):
            raise BadVideoError("is a picture, not a video: a TIFF of one page")
        stack = whole(path, array, last=samples)
        return replace(stack, seconds=file_times.of_tiff(file, stack.shape[0]))


def open_tiff(path: Path) -> Any:
    """Open a TIFF alone, none of the further files that OME metadata may name."""
    import tifffile

    return tifffile.TiffFile(path, _multifile=False)


def _pictures(files: list[Path]) -> Stack:
    if not files:
        raise BadVideoError("holds no pictures")
    first = _picture(files[0])

    def read(begin: int, end: int) -> Array:
        frames = [_picture(path) for path in files[begin:end]]
        for path, frame in zip(files[begin:end], frames, strict=True):
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise BadVideoError(
                    f"holds {path.name} of {frame.dtype} {frame.shape}, but its first picture is "
                    f"{first.dtype} {first.shape}; frames of a video are alike"
                )
        return np.stack(frames)

    return Stack((len(files), *first.shape), first.dtype.name, read)


def pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder in natural order: frame_2 before frame_10."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    return sorted((path for path in files if not path.name.startswith(".")), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    """Split a name into text and numbers, a key that sorts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _picture(path: Path) -> Array:
    if path.suffix.lower() in (".tif", ".tiff"):
        with open_tiff(path) as file:
            image: Array = file.asarray()
        kept = image.astype(_type(path, image.dtype))
    else:
        image = _decoded(path)
        is_deep = image.dtype.kind in "iu" and image.dtype.itemsize > 1  # 32 bits in Pillow's hands
        kept = image.astype("uint16" if is_deep else image.dtype)
    return kept[..., None] if kept.ndim == 2 else kept


def _decoded(path: Path) -> Array:
    """Decode a picture, without transparency; colour of 16 bits by FFmpeg, as Pillow halves it."""
    from PIL import Image

    with Image.open(path) as opened:
        if opened.format == "PNG" and opened.mode in ("RGB", "RGBA") and _is_deep(opened):
            return _deep_colour(path)
        mode = {"1": "L", "LA": "L"}.get(opened.mode, opened.mode)
        mode = "RGB" if mode in ("P", "PA", "RGBA", "CMYK", "YCbCr") else mode
        return np.asarray(opened.convert(mode) if mode != opened.mode else opened)


def _is_deep(opened: Any) -> bool:
    """Tell whether samples of a PNG have 16 bits, by the name of its raw mode (`RGB;16B`)."""
    return any(str(tile[3]).endswith("16B") for tile in opened.tile)


def _deep_colour(path: Path) -> Array:
    import av

    with path.open("rb") as file, av.open(file, "r", format="png_pipe") as container:
        colours: Array = next(container.decode(video=0)).to_ndarray()[..., :3]
    return colours


def is_animation(path: Path) -> bool:
    """Tell whether a picture file holds several pictures; a damaged one does not."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return getattr(opened, "n_frames", 1) > 1
    except Exception:  # whatever Pillow makes of bytes of any origin
        return False


def _animation(path: Path) -> Stack:
    """Read a webp animation: RGB, at the times that its pictures are shown."""
    from PIL import Image, ImageSequence

    frames, shown = [], []
    with Image.open(path) as opened:
        if getattr(opened, "n_frames", 1) < 2:
            raise BadVideoError("is a picture, not a video")
        for image in ImageSequence.Iterator(opened):
            frames.append(np.asarray(image.convert("RGB")))
            shown.append(image.info.get("duration", 0) / 1000)
    stack = whole(path, np.stack(frames), last=True)
    seconds = np.cumsum([0.0, *shown[:-1]])
    return replace(stack, seconds=seconds if (np.diff(seconds) > 0).all() else None)
