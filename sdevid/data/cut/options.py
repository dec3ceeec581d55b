"""The options of `make_shards`: which there are, for which data sets, and what they may be."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdevid import clock, frame_size
from sdevid.command_line import command_parser
from sdevid.data import transforms
from sdevid.data.andi import PHENOMENA
from sdevid.data.arrays import keep
from sdevid.data.brownian import DIFFUSION, MOTIONS
from sdevid.errors import UserError

DESCRIPTION = """Cut videos, or draw them, into WebDataset shards that `sdevid train` reads.

Nothing is downloaded. UCF101: https://www.crcv.ucf.edu/data/UCF101.php, Kinetics:
https://github.com/cvdfoundation/kinetics-dataset, MNIST: its IDX files, for moving-digits and
smmnist (Stochastic Moving MNIST).
The same command carries on an interrupted cut.
"""
FILMED = ("kinetics", "ucf101", "custom", "webdataset")
DISC = ("double-well", "ou")
SCENES = (*DISC, "pendulum", "gbm-radius")  # each of a known SDE
DIGITS = ("moving-digits", "smmnist")
DRAWN = (*DIGITS, *SCENES, "brownian", "andi")
SPLITS = "train=0.9,val=0.1"
_MOST = 10**8  # clips, frames or pixels that an option may ask for
OF_ARRAYS = ("transform", "tile", "tile_stride", "keep_if", "missing", "times", "clip_span", "unit")
_BELONGS: dict[
    str, tuple[tuple[str, ...], Any]
] = {  # options that only some data sets take, with their defaults
    "input_dir": ((*FILMED, *DIGITS), None),
    "fit": (FILMED, "crop"),
    "clip_stride": (FILMED, None),
    "shots": (FILMED, "off"),
    "channels": (FILMED, None),
    "captions": (("custom",), None),
    "label_level": (("custom",), 0),
    "transform": (("custom",), None),
    "tile": (("custom",), None),
    "tile_stride": (("custom",), None),
    "keep_if": (("custom",), None),
    "missing": (("custom",), None),
    "times": (("custom",), None),
    "clip_span": (("custom",), None),
    "unit": (("custom",), None),
    "annotations": (("kinetics",), []),
    "split_files": (("ucf101",), []),
    "num_clips": (DRAWN, 2000),
    "num_digits": (DIGITS, 2),
    "generator": (("smmnist",), "srvp"),
    "vertical": (DISC, "none"),
    "motion": (("brownian",), "brownian"),
    "blob_diffusion": (("brownian",), DIFFUSION),
    "phenomenon": (("andi",), "all"),
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line. UserError where options do not fit the data set."""
    options = _parser().parse_args(arguments)
    _settle(options)
    _settle_arrays(options)
    return options


def _place(text: str) -> Path | str:
    """Read a location: a URL or a brace list of tars as it stands, anything else as a path."""
    return text if "://" in text or text.endswith(".tar") else Path(text)


def _settle(options: argparse.Namespace) -> None:
    """Check the options and put in the defaults of those that this data set takes."""
    _check_blobs(options)
    for name, (takers, default) in _BELONGS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif options.dataset not in takers:
            raise UserError(f"--{name} is for {', '.join(takers)}, not for {options.dataset}")
    _settle_size(options)
    if options.frame_size is None and options.dataset != "custom":
        options.frame_size = 32 if options.dataset in SCENES else 64
    if options.dataset in (*FILMED, "smmnist") and options.input_dir is None:
        where = DESCRIPTION.split("\n\n")[1].replace("\n", " ")
        raise UserError(f"--dataset {options.dataset} needs --input_dir. {where}")
    if isinstance(options.input_dir, str) and options.dataset != "webdataset":
        raise UserError(
            f"--input_dir {options.input_dir} is for --dataset webdataset; give a folder of this "
            "machine"
        )
    if options.text_length is not None and options.text_encoder is None:
        raise UserError("--text_length is for --text_encoder, which is not given")
    positive = ("frame_size", "clip_length", "clip_stride", "shard_size", "num_clips")
    for name in (*positive, "text_length", "tile", "tile_stride"):
        value = getattr(options, name)
        if value is not None and not 0 < value <= _MOST:
            raise UserError(f"--{name} is {value:g}, but must be above 0 and at most {_MOST:,}")
    if (
        min(options.frame_size or 8, options.frame_width or 8) < 8
        or options.workers < 0
        or not 0 <= options.max_bad_fraction <= 1
    ):
        raise UserError(
            f"--frame_size is {options.frame_size} (8 or more), --workers {options.workers} (0 or "
            f"more), --max_bad_fraction {options.max_bad_fraction:g} (from 0 to 1)"
        )


def _check_blobs(options: argparse.Namespace) -> None:
    """Refuse a diffusion coefficient that is none, or of blobs whose own motion has one."""
    diffusion, motion = options.blob_diffusion, options.motion or "brownian"
    if diffusion is None:
        return
    if motion != "brownian":
        raise UserError(
            f"--blob_diffusion is of --motion brownian; that of {motion} has its own, which "
            "dataset.json says"
        )
    if not 0 <= diffusion < math.inf:
        raise UserError(
            f"--blob_diffusion is {diffusion:g}, but must be 0 or more, in pixel^2/s, and finite"
        )


def _settle_size(options: argparse.Namespace) -> None:
    """Read --frame_size: the height, and the width where frames are not square."""
    given, options.frame_width = options.frame_size, None
    if given is None:
        return
    try:
        options.frame_size, width = frame_size.parse(given)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    if width != options.frame_size:
        options.frame_width = width
        if options.dataset not in FILMED:
            raise UserError(f"--frame_size is {given}, but {options.dataset} is drawn square")


def _settle_arrays(options: argparse.Namespace) -> None:
    """Check what is for arrays alone, before anything is read."""
    if options.transform is not None:
        transforms.parse(options.transform)
    if options.keep_if is not None:
        keep.parse(options.keep_if)
    if options.tile_stride is not None and options.tile is None:
        raise UserError("--tile_stride is for --tile, which is not given")
    if options.clip_span is not None:
        try:
            options.clip_span = clock.interval(options.clip_span, "clip_span")
        except ValueError as error:
            raise UserError(f"--{error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "shards",
        DESCRIPTION,
        "sdevid shards --dataset custom --input_dir my_videos --output_dir data/mine "
        "--frame_size 64\nsdevid shards --dataset ou --output_dir data/ou",
    )
    add = parser.add_argument
    add(
        "--dataset",
        required=True,
        choices=[*FILMED, *DRAWN],
        help="filmed, or drawn with a known law",
    )
    add("--input_dir", type=_place, help="folder of videos, MNIST or tars; or s3://b/{00..99}.tar")
    add("--output_dir", type=Path, required=True, help="folder of the shards")
    add("--frame_size", help="side, or WIDTHxHEIGHT, in pixels (default: 64; of a known SDE: 32)")
    _add_clip_options(parser)
    _add_source_options(parser)
    _add_drawn_options(parser)
    _add_array_options(parser)
    parser.add_output_arguments()
    return parser


def _add_clip_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    clock.add_arguments(parser, None, "default: 8; of arrays, by their times")
    add("--clip_length", type=int, default=16, help="frames of a clip")
    add(
        "--shots",
        choices=["on", "off"],
        help="end clips at cuts; needs sdevid[shots] (default: off)",
    )
    add("--clip_stride", type=int, help="frames between starts (default: clip_length)")
    add(
        "--fit",
        choices=["crop", "letterbox"],
        help="for frames that are not square (default: crop)",
    )
    add(
        "--store",
        choices=["npy", "jpeg", "mp4"],
        help="payload of a clip (default: npy up to 128 pixels, jpeg above)",
    )
    add("--shard_size", type=int, default=512, help="clips a tar")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--splits",
        help=f"shares of source videos, names, time=0.8 (default: official ones, or {SPLITS})",
    )
    add("--split_files", type=Path, nargs="+", help="ucf101: trainlist01.txt testlist01.txt")
    add(
        "--annotations",
        type=Path,
        nargs="+",
        help="kinetics: csv files (default: those in input_dir)",
    )
    add(
        "--captions",
        type=Path,
        help="custom: csv of path,caption (default: captions.csv of input_dir and of its folders)",
    )
    add(
        "--label_level", type=int, help="custom: folders of a label, from the top (default: 0, all)"
    )
    add("--text_encoder", type=Path, help="local T5 or CLIP folder: store its embeddings too")
    add("--autoencoder", type=Path, help="folder of a frozen autoencoder: store its latents too")
    add(
        "--text_length",
        type=int,
        help="tokens of a caption, as text.length in training (default: 128)",
    )
    add("--seed", type=int, default=0, help="of the splits and of drawn data")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    add("--max_bad_fraction", type=float, default=0.1, help="stop past this share of damaged files")
    add("--overwrite", action="store_true", help="drop what output_dir holds of another cut")


def _add_array_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--channels",
        type=lambda text: {"1": "grey", "3": "rgb"}.get(text, text),
        choices=["grey", "rgb", "keep"],
        help="of filmed frames: 1, 3 or as they are (default: video: rgb; arrays: keep)",
    )
    add("--transform", help=f"arrays: {transforms.FORMS} (default: percentile 0 100)")
    add("--unit", help="arrays: of the values, e.g. mm/h (default: the file's)")
    add("--tile", type=int, help="arrays: side of windows of a larger field, in pixels")
    add("--tile_stride", type=int, help="arrays: pixels from window to window (default: tile)")
    add("--missing", type=float, help="arrays: the value of what was not observed, e.g. 65535")
    add("--keep_if", help="arrays: a rule on each clip, e.g. 'std > 0.02'")
    add("--times", type=Path, help="arrays: csv of path,seconds, a row a frame")
    add("--clip_span", help="arrays: longest time of a clip, e.g. 16s; for uneven times")


def _add_drawn_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--num_clips", type=int, help="drawn data: clips in all (default: 2000)")
    add("--num_digits", type=int, help="moving-digits, smmnist: digits a clip (default: 2)")
    add("--generator", choices=["svg", "srvp", "nsf"], help="smmnist: whose rules (default: srvp)")
    add(
        "--vertical", choices=["none", "ou"], help="double-well, ou: motion along y (default: none)"
    )
    add("--motion", choices=MOTIONS, help="brownian: the SDE of each blob (default: brownian)")
    add(
        "--blob_diffusion",
        type=float,
        help=f"of Brownian blobs, pixel^2/s of a frame of 64 (default: {DIFFUSION})",
    )
    add(
        "--phenomenon",
        choices=("all", *PHENOMENA),
        help="andi: which of the challenge's experiments (default: all, in turn)",
    )
