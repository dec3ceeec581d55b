"""How long a run takes to start on a large data set, and what memory its index takes.

    python benchmarks/index.py [--shards 10000] [--clips 1000]

Writes the indices of a made-up data set (the tars are not needed for this), then measures in a
fresh process: opening the split, holding its clips to a config and setting up the order, as every
rank does; the process's own memory for that; the clips of the first serials, in their shuffled
order. Beside it the JSON index of version 0.1.0, on as many shards as --json_shards. Results go to
benchmarks/results/index.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from sdevid.config import parse
from sdevid.data.columns import columns_name, encode_columns
from sdevid.data.entry import ClipEntry, Kind, Member
from sdevid.data.order import Order
from sdevid.data.shard_file import FORMAT, index_name, write_json
from sdevid.data.shards import open_shards
from sdevid.data.stream import check_clips
from sdevid.evaluate import provenance

ROOT = Path(__file__).resolve().parents[1]
KIND = Kind(num_frames=16, fps=8.0, height=64, width=64, channels=3)
SERIALS = 20_000  # read in order after the start
Row = dict[str, Any]


def entry(shard: str, number: int) -> ClipEntry:
    """Return a clip of 64 pixels as a cut names it."""
    where = number * 200_000
    payload = Member(where + 512, 196_736, hashlib.sha256(b"%d" % number).hexdigest(), "a" * 32)
    fields = Member(where + 198_000, 300, hashlib.sha256(b"json%d" % number).hexdigest(), "b" * 32)
    key = f"{number // 4:06d}-films-of-things-{number // 4}-{number % 4:04d}"
    source, members = f"films/of/things-{number // 4}.mp4", {"npy": payload, "json": fields}
    return ClipEntry(shard, key, source, "things", *KIND, members)


def make(folder: Path, shards: int, clips: int, kind: str) -> None:
    """Indices of `shards` tars of `clips` clips, all alike, and dataset.json."""
    names = [f"train-{number:06d}.tar" for number in range(shards)]
    entries = [entry(names[0], number) for number in range(clips)]
    split: dict[str, Any] = {"clips": shards * clips, "shards": names}
    if kind == "binary":
        content = encode_columns(entries, clips * 200_000 + 1024)
        digest = {"clips": clips, "sha256": hashlib.sha256(content).hexdigest()}
        split |= {"indices": dict.fromkeys(names, digest), "kinds": [KIND._asdict()]}
    else:
        index = {"format": FORMAT, "clips": [clip.as_json() for clip in entries]}
        content = json.dumps(index).encode()
    name_of = columns_name if kind == "binary" else index_name
    for name in names:
        (folder / name_of(name)).write_bytes(content)
    write_json(folder / "dataset.json", {"format": FORMAT, "splits": {"train": split}})


def measure(folder: Path) -> Row:
    """Return one rank's start, and its first clips."""
    shape = {"frame_size": KIND.height, "channels": KIND.channels, "fps": KIND.fps}
    config = parse(shape | {"sequence_length": KIND.num_frames})
    process = psutil.Process()
    before, began = process.memory_full_info().uss, time.perf_counter()
    index = open_shards(folder, "train")
    check_clips(index, config)
    order = Order(index.shard_sizes, config.seed, config.shuffle_window)
    first = index.clips[order.clip(0)]
    started = time.perf_counter() - began
    memory = process.memory_full_info().uss - before
    began = time.perf_counter()
    for serial in range(min(SERIALS, len(index))):
        first = index.clips[order.clip(serial)]
    reading = (time.perf_counter() - began) / min(SERIALS, len(index))
    assert first.shape == (16, 64, 64, 3)
    return {
        "clips": len(index),
        "shards": len(index.shard_sizes),
        "start_s": round(started, 3),
        "memory_mib": round(memory / 2**20, 1),
        "after_reading_mib": round((process.memory_full_info().uss - before) / 2**20, 1),
        "clip_us": round(1e6 * reading, 1),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--json_shards", type=int, default=100)
    parser.add_argument("--clips", type=int, default=1_000, help="of a shard")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # in a fresh process
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/index.csv")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    rows = []
    for kind, shards in (("binary", options.shards), ("json", options.json_shards)):
        with tempfile.TemporaryDirectory() as name:
            make(Path(name), shards, options.clips, kind)
            command = [sys.executable, __file__, "--measure", name]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"index": kind} | json.loads(output))
        print(rows[-1], flush=True)
    common = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": provenance.one_core(),
        "load": round(os.getloadavg()[0], 1),
    }
    with options.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *common], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | common for row in rows)


if __name__ == "__main__":
    main()
