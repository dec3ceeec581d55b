"""What stacks a folder or file holds, cut into windows and splits, and whether they are alike."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdevid.data.arrays.stack import (
    ANIMATION,
    ARRAYS,
    Stack,
    is_animation,
    is_stack,
    names,
    pictures,
    split_location,
)
from sdevid.data.cut.arrays import ArraySource, Tile, times_of
from sdevid.data.cut.sources import VIDEO, LeftOut, Listing, readable
from sdevid.data.cut.splits import parse_splits
from sdevid.data.cut.table import read_table
from sdevid.data.spec import BadVideoError
from sdevid.errors import UserError

_APART = 0.01  # relative difference of intervals that counts as another one


def array_listing(options: argparse.Namespace) -> Listing | None:
    """List the stacks under `input_dir`, as windows where tiles are asked for; None for videos.

    `input_dir` may be one file, with a variable after a colon. Raises UserError where stacks
    differ.
    """
    folder, variable = split_location(options.input_dir)
    listing = Listing()
    if folder.is_file() or folder.suffix.lower() == ".zarr":
        folders = {folder.name: folder}
    else:
        if not folder.is_dir():
            return None
        stacks = _stacks(folder, listing)
        if stacks is None:
            return None
        folders = stacks
    for name, path in folders.items():
        for held in _members(path, variable, name, listing):
            of = f"{name}:{held}" if path.suffix.lower() == ".npz" else name
            label = "/".join(name.split("/")[:-1])
            listing.sources.append(ArraySource(path, of, of, variable=held, label=label, file=of))
    if not listing.sources:
        return None
    _tell_times(listing, options.times)
    listing.files = len({source.file for source in listing.sources}) + len(listing.left_out)
    return listing


def _stacks(folder: Path, listing: Listing) -> dict[str, Path] | None:
    """Find the stacks in a folder, by name in natural order; None where there is a video."""
    stacks: dict[str, Path] = {}
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        if place.suffix.lower() == ".zarr":
            stacks[readable(place.relative_to(folder))] = place
            continue
        entries = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
        waiting += [entry for entry in entries if entry.is_dir()]
        files = [entry for entry in entries if entry.is_file()]
        if any(entry.suffix.lower() in VIDEO for entry in files):
            return None
        flat = [path for path in pictures(place) if not is_stack(path)]
        if len(flat) > 1:
            stacks[readable(place.relative_to(folder)) if place != folder else place.name] = place
        for path in files:
            name, ending = readable(path.relative_to(folder)), path.suffix.lower()
            if path in flat:
                if len(flat) == 1:
                    listing.left_out.append(LeftOut(name, "is a picture, not a video"))
            elif ending in ARRAYS or (ending == ANIMATION and is_animation(path)):
                stacks[name] = path
            elif ending == ANIMATION:
                listing.left_out.append(LeftOut(name, "is a picture, not a video"))
            else:
                listing.left_out.append(LeftOut(name, "is no stack of frames by its name"))
    return dict(sorted(stacks.items()))


def _members(path: Path, variable: str | None, name: str, listing: Listing) -> Iterator[str]:
    try:
        yield from names(path, variable)
    except BadVideoError as error:
        listing.left_out.append(LeftOut(name, str(error)))


def _tell_times(listing: Listing, csv: Path | None) -> None:
    """Give the stacks the times of a csv of path and seconds, a row for each frame."""
    if csv is None:
        return
    times_by_name = defaultdict[str, list[float]](list)
    for row in read_table(csv, ("path", "seconds")):
        try:
            times_by_name[Path(row.fields.get("path", "")).as_posix()].append(
                float(row.fields["seconds"])
            )
        except (KeyError, ValueError):
            raise UserError(
                f"{csv} line {row.line}: seconds is {row.fields.get('seconds')!r}, but must be the "
                "time of a frame in seconds"
            ) from None
    listing.sources = [
        replace(source, seconds=tuple(times_by_name[source.name]))
        if source.name in times_by_name
        else source
        for source in _arrays(listing)
    ]


def settle(options: argparse.Namespace, listing: Listing) -> None:
    """Settle rate, channels and frame size by what the stacks are; cut them into windows.

    Raises UserError where stacks differ in shape, type or interval, or say no times.
    """
    opened = [(source, _opened(source, listing)) for source in _arrays(listing)]
    stacks = [(source, stack) for source, stack in opened if stack is not None]
    if not stacks:
        raise UserError(
            f"{options.input_dir}: {listing.left_out[0].name} {listing.left_out[0].reason}"
        )
    first, like = stacks[0]
    for source, stack in stacks:
        if stack.dtype != like.dtype or stack.shape[3] != like.shape[3]:
            raise UserError(
                f"{source.name} holds {stack.dtype} of {stack.shape[3]} channels, but {first.name} "
                f"{like.dtype} of {like.shape[3]}; stacks of a data set are alike: cut them apart"
            )
    options.fps = _rate(options, stacks)
    options.dtype, options.channel_names = like.dtype, like.channel_names
    options.unit = options.unit or like.unit
    options.channels = options.channels or "keep"
    options.fit = "crop"
    sides = {_side(stack) for _, stack in stacks}
    if options.frame_size is None:
        options.frame_size = options.tile or min(sides)
        if options.tile is None and len(sides) > 1:
            other, unlike = next(pair for pair in stacks if _side(pair[1]) != _side(like))
            raise UserError(
                f"{other.name} has frames of {_size(unlike)}, but {first.name} of {_size(like)}; "
                "give --frame_size, to which each is brought, or --tile"
            )
    if options.frame_width is None and any(a != b for a, b in (s.shape[1:3] for _, s in stacks)):
        listing.remarks.append(
            "frames that are not square are cut to their middle square; --frame_size WIDTHxHEIGHT "
            "keeps another shape"
        )
    options.one_file_each = len({source.path for source, _ in stacks}) == len(stacks)
    listing.sources = [part for pair in stacks for part in _parts(*pair, options)]


def _side(stack: Stack) -> int:
    return min(stack.shape[1:3])


def _size(stack: Stack) -> str:
    return f"{stack.shape[2]}x{stack.shape[1]}"


def _arrays(listing: Listing) -> list[ArraySource]:
    """Pick the sources of a listing, all of which are stacks."""
    return [source for source in listing.sources if isinstance(source, ArraySource)]


def _opened(source: ArraySource, listing: Listing) -> Stack | None:
    try:
        stack = source.open()
        times_of(stack, 1.0)
    except BadVideoError as error:
        listing.left_out.append(LeftOut(source.file, str(error)))
        return None
    return stack


def _rate(options: argparse.Namespace, stacks: list[tuple[ArraySource, Stack]]) -> float:
    """Find the frame rate, in frames a second, by the stacks' times or --interval."""
    rate: float | None = options.fps
    for source, stack in stacks:
        if stack.seconds is None or len(stack.seconds) < 2:
            if rate is None:
                raise UserError(
                    f"{source.name} says no times of its frames; give --interval, e.g. 2min, or "
                    "--times with a csv of path,seconds"
                )
            continue
        gap = float(np.median(np.diff(times_of(stack, 1.0))))
        rate = 1 / gap if rate is None else rate
        if abs(gap * rate - 1) > _APART:
            raise UserError(
                f"{source.name} has a frame every {gap:g} s by its times, but {1 / rate:g} s are "
                "asked for, or those of another stack; leave out --interval, or cut them apart"
            )
    assert rate is not None
    return rate


def _parts(source: ArraySource, stack: Stack, options: argparse.Namespace) -> Iterator[ArraySource]:
    """Yield the windows and stretches of a stack, with the split where place or time decides it."""
    source = replace(source, keep_if=options.keep_if, clip_span=options.clip_span)
    source = replace(source, missing=options.missing)
    share = _time_share(options.splits)
    for tile, split in _tiles(source, stack, options):
        part = source
        if tile is not None:
            name = f"{source.name}@{tile.top},{tile.left}"
            part = replace(source, name=name, group=name, tile=tile, split=split)
        if share is None:
            yield part
            continue
        border = round(share * stack.shape[0])
        for split, frames in (("train", (0, border)), ("val", (border, stack.shape[0]))):
            yield replace(part, name=f"{part.name}#{split}", split=split, frames=frames)


def _time_share(splits: Any) -> float | None:
    if splits is None or not splits.startswith("time="):
        return None
    share = 0.0
    try:
        share = float(splits.removeprefix("time="))
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(
            f"--splits is {splits!r}, but time= takes a share from 0 to 1, e.g. time=0.8"
        )
    return share


def _tiles(
    source: ArraySource, stack: Stack, options: argparse.Namespace
) -> Iterator[tuple[Tile | None, str | None]]:
    """Yield windows that lie wholly in the band of one split; bands divide the field's width."""
    side = options.tile
    if side is None:
        yield None, None
        return
    height, width = stack.shape[1:3]
    if side > min(height, width):
        raise UserError(
            f"--tile is {side}, but {source.name} has frames of {width}x{height}; give a tile that "
            "fits, or none"
        )
    step = options.tile_stride or side
    bands = _bands(width, side, options.splits)
    for top in range(0, height - side + 1, step):
        for name, (low, high) in bands.items():
            for left in range(low, high - side + 1, step):
                yield Tile(top, left, side), name


def _bands(width: int, side: int, splits: str | None) -> dict[str | None, tuple[int, int]]:
    if splits is None or splits == "names" or splits.startswith("time="):
        return {None: (0, width)}
    bands: dict[str | None, tuple[int, int]] = {}
    begin, total = 0, 0.0
    for name, share in parse_splits(splits).items():
        total += share
        end = round(total * width)
        if end - begin < side:
            raise UserError(
                f"--splits {splits} leaves {end - begin} of {width} columns to {name}, but --tile "
                f"is {side}; give it a larger share, a smaller tile, or --splits time=0.8"
            )
        bands[name], begin = (begin, end), end
    return bands
