"""Cut videos, or draw them, into WebDataset shards."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from sdevid.data.cut import Plan, cut
from sdevid.data.drawn import disc_artist, drawn_sources
from sdevid.data.payload import default_store
from sdevid.data.spec import CutSpec
from sdevid.data.splits import in_order, parse_splits
from sdevid.errors import UserError

_DRAWN = ("moving-digits", "double-well", "ou")
_FILMED = ("kinetics", "ucf101", "custom")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        plan = _plan(options)
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
    except KeyboardInterrupt:
        print("make_shards: stopped; the same command carries on", file=sys.stderr)
        return 130
    _summarize(content, options.output_dir, time.monotonic() - started)
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    shares = parse_splits(options.splits or "train=0.9,val=0.1")
    spec = CutSpec(
        frame_size=options.frame_size,
        fps=options.fps,
        clip_length=options.clip_length,
        clip_stride=options.clip_stride or options.clip_length,
        fit=options.fit,
        store=options.store or default_store(options.frame_size),
    )
    artist = disc_artist(options.dataset, options.vertical)
    drawn = drawn_sources(options.dataset, artist, options.seed, options.num_clips, shares)
    split_of = {source.group: source.split for source in drawn}
    ordered = in_order(drawn, split_of)
    settings: dict[str, Any] = {"seed": options.seed, "splits": shares}
    return Plan(
        dataset=options.dataset,
        sources=ordered,
        splits=[split_of[source.group] for source in ordered],
        spec=spec,
        shard_size=options.shard_size,
        settings=settings | {"num_clips": options.num_clips, "vertical": options.vertical},
        truth=artist.truth(),
    )


def _summarize(content: dict[str, Any], folder: Path, seconds: float) -> None:
    print(f"{folder}: {content['dataset']}, {content['store']}, {seconds:.1f} s")
    for split, said in content["splits"].items():
        size = sum((folder / shard).stat().st_size for shard in said["shards"])
        print(
            f"  {split}: {said['clips']} clips of {said['videos']} videos in "
            f"{len(said['shards'])} shards, {size / 2**20:.1f} MiB"
        )
    print(f"  quarantined: {content['quarantined']} (quarantine.jsonl)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_shards", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=[*_FILMED, *_DRAWN])
    parser.add_argument("--input_dir", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--frame_size", type=int, default=64)
    parser.add_argument("--fit", choices=["crop", "letterbox"], default="crop")
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--clip_length", type=int, default=16)
    parser.add_argument("--clip_stride", type=int)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shard_size", type=int, default=512)
    parser.add_argument("--store", choices=["npy", "jpeg", "mp4"])
    parser.add_argument("--splits")
    parser.add_argument("--max_bad_fraction", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_clips", type=int, default=2000)
    parser.add_argument("--vertical", choices=["none", "ou"], default="none")
    parser.add_argument("--overwrite", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
