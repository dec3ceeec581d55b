"""Reads frames to condition on from arrays in the source's units: stacks, fields, deep pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.config import Config
from sdevid.data import source_units
from sdevid.data.arrays.fit import check_missing, fitted
from sdevid.data.arrays.stack import (
    ARRAYS,
    PICTURES,
    Stack,
    is_stack,
    names,
    open_stack,
    split_location,
)
from sdevid.data.spec import BadVideoError, CutSpec
from sdevid.errors import UserError
from sdevid.sample.picture_files import ObservedPictures

_APART = 0.01  # relative difference of intervals that counts as another one


def takes(location: Path, config: Config) -> bool:
    """Tell whether `location` is to be read as an array: it is one, or pictures of such a source.

    A TIFF of one page and a folder of pictures are arrays where the model's values are a source's.
    """
    path, variable = split_location(location)
    if variable is not None:
        return True
    ending = path.suffix.lower()
    if ending in PICTURES or (path.is_dir() and ending != ".zarr"):
        several = ending in (".tif", ".tiff") and path.is_file() and is_stack(path)
        return several or config.source.transform != "none"
    return ending in ARRAYS


def read(
    location: Path,
    count: int | None,
    most: int,
    config: Config,
    fps: float,
    option: str,
    missing: float | None = None,
) -> ObservedPictures:
    """Read the first `count` frames (None: all, at most `most`), as the model takes them.

    Values are in the source's units, as when its shards were cut: the transform of the config is
    applied, and NaN or `missing` is not observed. Frames of another shape are cut to their middle
    and resized. Raises UserError, which names `option`, where the array does not fit the model.
    """
    path, variable = split_location(location)
    if not path.exists():
        raise UserError(f"{option} {path} does not exist")
    try:
        stack = _opened(path, variable, option)
        number = min(stack.shape[0], most if count is None else count)
        if count is not None and number < count:
            raise UserError(
                f"{option} {location} holds {stack.shape[0]} frames, but {count} are needed; give "
                "more frames or a smaller --num_initial_frames"
            )
        _check_times(stack, number, fps, f"{option} {location}")
        frames = stack.read(0, number)
        spec = _spec(stack, config, fps, f"{option} {location}")
        video, absent = fitted(frames, spec), _absent(frames, missing)
    except BadVideoError as error:
        raise UserError(
            f"{option} {location} {error}; give a stack of frames in the source's units"
        ) from error
    values = _mapped(video, config, f"{option} {location}")
    if absent.any():
        values = values if values.dtype.kind == "f" else values / np.float32(255)
        values[fitted(absent.astype(np.float32), spec) > 0] = np.nan
    height, width = stack.shape[1:3]
    return ObservedPictures(values, _notes(stack, config, option), f"{width}x{height}")


def _opened(path: Path, variable: str | None, option: str) -> Stack:
    if path.is_file() and path.suffix.lower() in PICTURES and not is_stack(path):
        return open_stack(path, "", alone=True)
    held = names(path, variable)
    if len(held) != 1:
        raise UserError(
            f"{option} {path} holds {len(held)} arrays; name one after a colon, {path}:"
            f"{held[0] if held else 'NAME'}"
        )
    return open_stack(path, held[0])


def _check_times(stack: Stack, number: int, fps: float, what: str) -> None:
    """Raise UserError where the frames' own times are not those at which they are taken."""
    if stack.seconds is None or number < 2:
        return
    apart = np.diff(stack.seconds[:number])
    if np.abs(apart * fps - 1).max() > _APART:
        low, high = apart.min(), apart.max()
        gap = f"{low:g} s" if high - low <= _APART * high else f"{low:g} to {high:g} s"
        raise UserError(
            f"{what} has frames every {gap} by its times, but frames are {1 / fps:g} s apart; "
            "give --interval as they are, or frames as far apart"
        )


def _spec(stack: Stack, config: Config, fps: float, what: str) -> CutSpec:
    held, wanted = stack.shape[3], config.channels
    convert = {(3, 1): "grey", (1, 3): "rgb"}.get((held, wanted), "keep")
    if convert == "keep" and held != wanted:
        raise UserError(
            f"{what} has {held} channels, but the model takes {wanted} "
            f"({', '.join(config.source.channel_names) or 'channels in its config'}); give those"
        )
    height, width = config.frame_shape
    return CutSpec(height, fps, 1, 1, "crop", "npy", convert, width)  # type: ignore[arg-type]


def _absent(frames: NDArray[Any], missing: float | None) -> NDArray[np.bool_]:
    check_missing(missing, frames.dtype, "--missing")
    absent = np.isnan(frames) if frames.dtype.kind == "f" else np.zeros(frames.shape, bool)
    return absent if missing is None else absent | (frames == frames.dtype.type(missing))


def _mapped(video: NDArray[Any], config: Config, what: str) -> NDArray[Any]:
    """Apply the model's transform; grey levels stay what they are."""
    transform = source_units.of_config(config.source).transform
    if transform is not None:
        return transform.apply(video)
    if video.dtype != np.uint8:
        raise UserError(
            f"{what} holds {video.dtype}, but the model was trained on grey levels from 0 to 255 "
            "(source.transform is none in its config); give uint8"
        )
    return video


def _notes(stack: Stack, config: Config, option: str) -> tuple[str, ...]:
    kind, (height, width) = option.removeprefix("--").replace("_", " "), config.frame_shape
    size = f"{stack.shape[2]}x{stack.shape[1]}"
    if size == f"{width}x{height}":
        return ()
    return (f"{kind} are {size}, the model's {width}x{height}: the middle is resized",)
