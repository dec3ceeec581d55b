"""Cut videos, or draw them, into WebDataset shards that `sdevid train` reads.

Nothing is downloaded. UCF101: https://www.crcv.ucf.edu/data/UCF101.php, Kinetics:
https://github.com/cvdfoundation/kinetics-dataset, MNIST: its IDX files, for moving-digits and
smmnist (Stochastic Moving MNIST).
An interrupted cut is carried on by the same command.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdevid.config import TextConfig
from sdevid.data.cut import Plan, cut
from sdevid.data.digits import digit_artists, read_mnist
from sdevid.data.drawn import Artist, disc_artist, drawn_sources
from sdevid.data.embedding import Embedder
from sdevid.data.kinetics import kinetics
from sdevid.data.payload import default_store
from sdevid.data.smmnist import stochastic_digits
from sdevid.data.sources import custom
from sdevid.data.spec import CutSpec
from sdevid.data.splits import assign, parse_splits
from sdevid.data.ucf101 import ucf101
from sdevid.errors import UserError

_FILMED = ("kinetics", "ucf101", "custom")
_DISC = ("double-well", "ou")
_SCENES = (*_DISC, "pendulum", "gbm-radius")  # each of a known SDE
_DIGITS = ("moving-digits", "smmnist")
_DRAWN = (*_DIGITS, *_SCENES)
_SPLITS = "train=0.9,val=0.1"
_BELONGS: dict[
    str, tuple[tuple[str, ...], Any]
] = {  # options that only some data sets take, with their defaults
    "input_dir": ((*_FILMED, *_DIGITS), None),
    "fit": (_FILMED, "crop"),
    "clip_stride": (_FILMED, None),
    "captions": (("custom",), None),
    "annotations": (("kinetics",), []),
    "split_files": (("ucf101",), []),
    "num_clips": (_DRAWN, 2000),
    "num_digits": (_DIGITS, 2),
    "generator": (("smmnist",), "srvp"),
    "vertical": (_DISC, "none"),
}


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 for what the user can mend."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        _settle(options)
        plan = _filmed(options) if options.dataset in _FILMED else _drawn(options)
        if options.text_encoder is not None:
            plan = replace(plan, embed=_embedder(options))
        if plan.left_out:
            name, reason = plan.left_out[0]
            print(f"{len(plan.left_out)} left out, as {name}: {reason}", file=sys.stderr)
        content = cut(
            plan,
            options.output_dir,
            workers=options.workers,
            max_bad_fraction=options.max_bad_fraction,
            overwrite=options.overwrite,
        )
    except UserError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"make_shards: {error}; mend it: the same command carries on", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_shards: stopped; the same command carries on", file=sys.stderr)
        return 130
    _summarize(content, options.output_dir, time.monotonic() - started)
    return 0


def _settle(options: argparse.Namespace) -> None:
    """Check the options and put in the defaults of those that this data set takes."""
    for name, (takers, default) in _BELONGS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif options.dataset not in takers:
            raise UserError(f"--{name} is for {', '.join(takers)}, not for {options.dataset}")
    if options.frame_size is None:
        options.frame_size = 32 if options.dataset in _SCENES else 64
    if options.dataset in (*_FILMED, "smmnist") and options.input_dir is None:
        where = (__doc__ or "").split("\n\n")[1].replace("\n", " ")
        raise UserError(f"--dataset {options.dataset} needs --input_dir. {where}")
    if options.text_length is not None and options.text_encoder is None:
        raise UserError("--text_length is for --text_encoder, which is not given")
    positive = ("frame_size", "clip_length", "clip_stride", "shard_size", "num_clips", "fps")
    for name in (*positive, "text_length"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name} is {value:g}, but must be above 0")
    if options.frame_size < 8 or options.workers < 0 or not 0 <= options.max_bad_fraction <= 1:
        raise UserError(
            f"--frame_size is {options.frame_size} (8 or more), --workers {options.workers} (0 or "
            f"more), --max_bad_fraction {options.max_bad_fraction:g} (from 0 to 1)"
        )


def _filmed(options: argparse.Namespace) -> Plan:
    folder, official = options.input_dir, options.splits is None
    if options.dataset == "kinetics":
        listing = kinetics(folder, options.annotations, official)
    elif options.dataset == "ucf101":
        listing = ucf101(folder, options.split_files, official)
    else:
        listing = custom(folder, options.captions)
    if not listing.sources:
        name, reason = listing.left_out[0]
        raise UserError(f"no video of {folder} can be taken: {name} {reason}")
    shares = parse_splits(options.splits or _SPLITS)
    return Plan(
        dataset=options.dataset,
        sources=assign(listing.sources, shares, options.seed),
        spec=_spec(options),
        shard_size=options.shard_size,
        settings={"splits": "official" if listing.sources[0].split else shares}
        | {"seed": options.seed},
        left_out=listing.left_out,
    )


def _drawn(options: argparse.Namespace) -> Plan:
    shares = parse_splits(options.splits or _SPLITS)
    settings = {"splits": shares, "seed": options.seed, "num_clips": options.num_clips}
    artists: dict[str, Artist] = {}
    if options.dataset == "moving-digits":
        folder = options.input_dir
        artists.update(digit_artists(options.num_digits, folder, shares))
        glyphs = "font" if folder is None else f"{len(read_mnist(folder)[0])} of MNIST"
        settings |= {"num_digits": options.num_digits, "digits": glyphs}
    elif options.dataset == "smmnist":
        folder, side = options.input_dir, options.frame_size
        artists.update(
            stochastic_digits(options.generator, options.num_digits, folder, shares, side)
        )
        settings |= {"num_digits": options.num_digits, "generator": options.generator}
        settings |= {"digits": f"{len(read_mnist(folder)[0])} of MNIST"}
    else:
        artists.update(dict.fromkeys(shares, disc_artist(options.dataset, options.vertical)))
        if options.dataset in _DISC:
            settings |= {"vertical": options.vertical}
    sources = drawn_sources(options.dataset, artists, options.seed, options.num_clips, shares)
    return Plan(
        dataset=options.dataset,
        sources=assign(sources, shares, options.seed),
        spec=_spec(options),
        shard_size=options.shard_size,
        settings=settings,
        truth=next(iter(artists.values())).truth(),
    )


def _embedder(options: argparse.Namespace) -> Embedder:
    """Runs in this process alone, so that the ones that cut do not wait for its import."""
    from sdevid.models.frozen_text import FrozenText

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return FrozenText(options.text_encoder, options.text_length or TextConfig().length, device)


def _spec(options: argparse.Namespace) -> CutSpec:
    return CutSpec(
        frame_size=options.frame_size,
        fps=options.fps,
        clip_length=options.clip_length,
        clip_stride=options.clip_stride or options.clip_length,
        fit=options.fit,
        store=options.store or default_store(options.frame_size),
    )


def _summarize(content: dict[str, Any], folder: Path, seconds: float) -> None:
    print(f"{folder}: {content['dataset']}, {content['store']}, {seconds:.1f} s")
    for split, said in content["splits"].items():
        size = sum((folder / shard).stat().st_size for shard in said["shards"])
        print(
            f"  {split}: {said['clips']} clips of {said['videos']} videos in "
            f"{len(said['shards'])} shards, {size / 2**20:.1f} MiB"
        )
    if content["clips_with_repeated_frames"]:
        print(
            f"  {content['clips_with_repeated_frames']} clips repeat frames: their videos have "
            f"fewer than {content['fps']:g} a second"
        )
    if content["quarantined"] or content["left_out"]:
        print(
            f"  {content['quarantined']} bad videos, {content['left_out']} left out: "
            f"{folder / 'quarantine.jsonl'}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", required=True, choices=[*_FILMED, *_DRAWN])
    add(
        "--input_dir", type=Path, help="folder of videos; moving-digits: of MNIST (default: a font)"
    )
    add("--output_dir", type=Path, required=True)
    add("--frame_size", type=int, help="pixels, square (64; of a known SDE: 32)")
    add("--fps", type=float, default=8.0, help="frames a second (8)")
    add("--clip_length", type=int, default=16, help="frames (16)")
    add("--clip_stride", type=int, help="frames between starts (clip_length)")
    add("--fit", choices=["crop", "letterbox"], help="for frames that are not square (crop)")
    add("--store", choices=["npy", "jpeg", "mp4"], help="npy up to 128 pixels, jpeg above")
    add("--shard_size", type=int, default=512, help="clips a tar (512)")
    add("--splits", help=f"shares of source videos; the official ones, or {_SPLITS}")
    add("--split_files", type=Path, nargs="+", help="ucf101: trainlist01.txt testlist01.txt")
    add("--annotations", type=Path, nargs="+", help="kinetics: csv files (those in input_dir)")
    add("--captions", type=Path, help="custom: csv of path,caption (input_dir/captions.csv)")
    add("--text_encoder", type=Path, help="local T5 or CLIP folder: store its embeddings too")
    add("--text_length", type=int, help="tokens of a caption, as text.length in training (128)")
    add("--num_clips", type=int, help="drawn data: clips in all (2000)")
    add("--num_digits", type=int, help="moving-digits, smmnist: digits a clip (2)")
    add("--generator", choices=["svg", "srvp", "nsf"], help="smmnist: whose rules (srvp)")
    add("--vertical", choices=["none", "ou"], help="double-well, ou: motion along y (none)")
    add("--seed", type=int, default=0, help="of the splits and of drawn data (0)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (all cores)")
    add("--max_bad_fraction", type=float, default=0.1, help="stop past this share (0.1)")
    add("--overwrite", action="store_true", help="drop what output_dir holds of another cut")
    return parser


if __name__ == "__main__":
    sys.exit(main())
