"""What stacks a folder or file holds, cut into windows and splits, and whether they are alike."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdevid.data.arrays.fit import check_missing
from sdevid.data.arrays.stack import (
    ANIMATION,
    ARRAYS,
    PICTURES,
    Stack,
    is_animation,
    is_stack,
    names,
    split_location,
)
from sdevid.data.cut.arrays import ArraySource, Tile, times_of
from sdevid.data.cut.captions import caption_lists, read_captions
from sdevid.data.cut.custom import label_of
from sdevid.data.cut.sources import VIDEO, FileListing, LeftOut, Listing, find, readable
from sdevid.data.cut.splits import parse_splits
from sdevid.data.cut.table import read_table
from sdevid.data.spec import BadVideoError
from sdevid.errors import UserError

_WANTED = VIDEO | ARRAYS | PICTURES | {ANIMATION}
_APART = 0.01  # relative difference of intervals that counts as another one


def array_listing(options: argparse.Namespace) -> Listing | None:
    """List the stacks under `input_dir`, as windows where tiles are asked for; None for videos.

    `input_dir` may be one file, with a variable after a colon. Raises UserError where stacks
    differ, or a list names none of them.
    """
    folder, variable = split_location(options.input_dir)
    captions = {} if options.captions is None else {options.captions: folder}
    if folder.is_file() or folder.suffix.lower() == ".zarr":
        folders, listing = {folder.name: folder}, Listing()
    else:
        if not folder.is_dir():
            return None
        captions = caption_lists(folder, options.captions)
        found = find(folder, _WANTED, options.output_dir, kind="stack of frames")
        if any(path.suffix.lower() in VIDEO for path in found.files.values()):
            return None
        lists = (*captions, *(() if options.times is None else (options.times,)))
        listing = found.listing(lists, folder)
        folders = _stacks(folder, found, listing)
    for name, path in folders.items():
        for held in _members(path, variable, name, listing):
            of = f"{name}:{held}" if path.suffix.lower() == ".npz" else name
            label = label_of(name, options.label_level or 0)
            listing.sources.append(ArraySource(path, of, of, variable=held, label=label, file=of))
    if not listing.sources:
        return None
    _tell_times(listing, options.times)
    if captions:
        _tell_captions(listing, captions, folder)
    files = len({source.file for source in listing.sources}) + listing.lists
    listing.files = files + sum(item.of == "file" for item in listing.left_out)
    return listing


def _stacks(folder: Path, found: FileListing, listing: Listing) -> dict[str, Path]:
    """Pick the stacks of the files found, by name; a folder of pictures is one."""
    stacks: dict[str, Path] = {}
    flat: dict[Path, list[str]] = defaultdict(list)  # pictures of one frame, by their folder
    for name, path in found.files.items():
        ending = path.suffix.lower()
        if ending in PICTURES and not is_stack(path):
            flat[path.parent].append(name)
        elif ending == ANIMATION and not is_animation(path):
            listing.left_out.append(LeftOut(name, "is a picture, not a video"))
        else:
            stacks[name] = path
    for place, names_of in flat.items():
        if len(names_of) > 1:
            stacks[readable(place.relative_to(folder)) if place != folder else place.name] = place
        else:
            listing.left_out.append(LeftOut(names_of[0], "is a picture, not a video"))
    return dict(sorted(stacks.items()))


def _members(path: Path, variable: str | None, name: str, listing: Listing) -> Iterator[str]:
    try:
        yield from names(path, variable)
    except BadVideoError as error:
        listing.left_out.append(LeftOut(name, str(error)))


def _tell_times(listing: Listing, csv: Path | None) -> None:
    """Give the stacks the times of a csv of path and seconds, a row for each frame.

    Raises UserError for a row that names no stack, or whose seconds are no number.
    """
    if csv is None:
        return
    sources = _arrays(listing)
    known = {source.name for source in sources} | {item.name for item in listing.left_out}
    times_by_name = defaultdict[str, list[float]](list)
    for row in read_table(csv, ("path", "seconds")):
        name = Path(row.fields.get("path", "").strip()).as_posix()
        if name not in known:
            raise UserError(
                f"{csv} line {row.line} names {name}, which is not there; there are "
                f"{', '.join(sorted(source.name for source in sources)[:5])}: give the name of one"
            )
        try:
            times_by_name[name].append(float(row.fields["seconds"]))
        except (KeyError, ValueError):
            raise UserError(
                f"{csv} line {row.line}: seconds is {row.fields.get('seconds')!r}, but must be the "
                "time of a frame in seconds"
            ) from None
    listing.sources = [
        replace(source, seconds=tuple(times_by_name[source.name]))
        if source.name in times_by_name
        else source
        for source in sources
    ]


def _tell_captions(listing: Listing, lists: Mapping[Path, Path], folder: Path) -> None:
    """Give the stacks the captions of csvs of path and caption; each row is accounted for."""
    sources = _arrays(listing)
    named = FileListing(
        {source.name: source.path for source in sources},
        {item.name: item.reason for item in listing.left_out},
    )
    texts = read_captions(lists, folder, named, listing)
    listing.sources = [
        replace(source, captions=tuple(given), rows=len(given))
        if (given := texts.get(source.name, []))
        else source
        for source in sources
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
    check_missing(options.missing, np.dtype(like.dtype), "--missing")
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
    share, rows = _time_share(options.splits), source.rows
    for tile, split in _tiles(source, stack, options):
        part = replace(source, rows=rows)
        rows = 0  # of the file, which the first of its parts stands for
        if tile is not None:
            name = f"{source.name}@{tile.top},{tile.left}"
            part = replace(part, name=name, group=name, tile=tile, split=split)
        if share is None:
            yield part
            continue
        border = round(share * stack.shape[0])
        for split, frames in (("train", (0, border)), ("val", (border, stack.shape[0]))):
            yield replace(part, name=f"{part.name}#{split}", split=split, frames=frames)
            part = replace(part, rows=0)


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
