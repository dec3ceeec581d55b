"""Clips of 16 frames read a second, beside plain webdataset on the same shards, one core each.

    python benchmarks/data.py [--clips 384] [--rounds 7] [--sizes 64 128] [--no_training]

Readers run in one process, one thread and in turn; a figure is the best of the rounds, by the
thread's own time, so that a busy machine disturbs it less. The shards lie in the page cache.
webdataset reads in the order of the tars; sdevid in its shuffled order. Each ends at a uint8 batch
of 32 clips. Members are decoded by the functions below: webdataset's own decoders would run
pickles. Last, a short training says which share of a step is spent waiting for data. Results go to
benchmarks/results/data.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import torch
import webdataset

from sdevid.config import Config, parse
from sdevid.data.payload import Store, encode
from sdevid.data.shard_file import FORMAT, ShardFile, write_json
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.data.stream import steps
from sdevid.data.webdataset_reader import TarReader, open_tars
from sdevid.evaluate import provenance

ROOT = Path(__file__).resolve().parents[1]
FRAMES, BATCH, PER_SHARD = 16, 32, 128
TRAINED = 1_600  # clips, of which those up to the first report are left out
Row = dict[str, Any]
Reader = Callable[[], int]  # reads an epoch; how many clips it was


def make_shards(folder: Path, store: Store, size: int, clips: int) -> Path:
    """Coloured waves that move, as fine as a small film, in shards of 128 clips."""
    output = folder / f"{store}-{size}"
    output.mkdir()
    rng = np.random.default_rng(0)
    names = [f"train-{number:06d}.tar" for number in range(-(-clips // PER_SHARD))]
    for number, name in enumerate(names):
        shard = ShardFile(output, name)
        for k in range(number * PER_SHARD, min((number + 1) * PER_SHARD, clips)):
            meta = {"source": f"{k}.mp4", "label": "", "caption": f"waves {k}", "fps": 8.0}
            meta |= {"num_frames": FRAMES, "height": size, "width": size, "channels": 3}
            shard.add(f"{k:06d}", meta, {store: encode(store, _waves(rng, size), 8.0)})
        shard.close()
    splits = {"train": {"clips": clips, "videos": clips, "shards": names}}
    write_json(output / "dataset.json", {"format": FORMAT, "splits": splits})
    return output


def _waves(rng: np.random.Generator, size: int) -> np.ndarray:
    t, y, x, c = np.ogrid[:FRAMES, :size, :size, :3]
    fx, fy, speed, turn = rng.uniform([4, 4, -4, 0], [12, 12, 4, 6])
    waves = np.sin((x + speed * t) / fx) + np.cos((y - speed * t) / fy + turn * c)
    return (127 + 60 * waves).astype(np.uint8)


def webdataset_reader(index: ShardIndex) -> Reader:
    """Return the tars in sequence through webdataset, decoded by numpy or PyAV."""
    tars = [
        str(Path(index.folder.location) / s) for s in dict.fromkeys(c.shard for c in index.clips)
    ]
    channels = index.clips[0].channels
    decode = {"npy": _numpy, "mp4": lambda payload: _pyav(payload, channels)}
    extension = index.clips[0].extension

    def read(sample: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        return decode[extension](sample[extension]), json.loads(sample["json"])

    def epoch() -> int:
        samples = iter(webdataset.WebDataset(tars, shardshuffle=False).map(read))
        count = 0
        while clips := list(islice(samples, BATCH)):
            torch.from_numpy(np.stack([video for video, _ in clips]))
            count += len(clips)
        return count

    return epoch


def _numpy(payload: bytes) -> np.ndarray:
    return np.asarray(np.load(io.BytesIO(payload), allow_pickle=False))


def _pyav(payload: bytes, channels: int) -> np.ndarray:
    form = "gray" if channels == 1 else "rgb24"
    with av.open(io.BytesIO(payload)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format=form) for frame in container.decode(video=0)]
    video = np.stack(frames)
    return video.reshape(*video.shape[:3], channels)


def sdevid_reader(index: ShardIndex, again: bool) -> Reader:
    """Our stream, in this thread; `again`: of an index that has read each clip before."""
    settings = _settings(index)

    def epoch() -> int:
        fresh = ShardIndex(index.folder, index.split, index.dataset, index.clips)
        batches = islice(steps(index if again else fresh, settings, 0, 1, 0), len(index) // BATCH)
        return sum(len(batch.serial) for step in batches for batch in step)

    return epoch


def tar_reader(index: ShardIndex) -> Reader:
    """Return the same tars as a stream without an index, in this thread: a new one an epoch."""
    last = -(-len(index) // PER_SHARD) - 1
    tars = f"{index.folder.location}/train-{{000000..{last:06d}}}.tar"
    settings = _settings(index, data=tars, max_clips=len(index), data_reader="webdataset")

    def epoch() -> int:
        reader = TarReader(open_tars(settings, 1), 0, 1, [])
        batches = islice(reader.steps(0), len(index) // BATCH)
        return sum(len(batch.serial) for step in batches for batch in step)

    return epoch


def _settings(index: ShardIndex, **more: Any) -> Config:
    clip = index.clips[0]
    shape = {"frame_size": clip.height, "channels": clip.channels, "sequence_length": FRAMES}
    return parse(shape | {"fps": clip.fps, "batch_size": BATCH, "data_workers": 0} | more)


def race(readers: dict[str, Reader], rounds: int) -> dict[str, float]:
    """Return the most clips a second of each, the readers taking turns.

    The first round is not counted.
    """
    best = dict.fromkeys(readers, 0.0)
    for number in range(rounds + 1):
        for name, read in readers.items():
            before = time.thread_time()
            clips = read()
            if number:
                best[name] = max(best[name], clips / (time.thread_time() - before))
    return best


def compare(folder: Path, store: Store, size: int, clips: int, rounds: int) -> Iterator[Row]:
    """Yield clips a second of each reader, and how many times webdataset's."""
    index = open_shards(make_shards(folder, store, size, clips), "train")
    best = race(
        {
            "webdataset": webdataset_reader(index),
            "sdevid, first epoch (every xxh3 compared)": sdevid_reader(index, again=False),
            "sdevid, later epochs": sdevid_reader(index, again=True),
            "sdevid, tars without an index (data_reader)": tar_reader(index),
        },
        rounds,
    )
    for name, rate in best.items():
        times = rate / best["webdataset"]
        row = {"store": store, "frame_size": size, "reader": name}
        yield row | {"clips_per_s": round(rate, 1), "times_webdataset": round(times, 2)}


def waiting(folder: Path, store: Store, workers: int) -> Row:
    """Return the share of a step spent waiting for data in a short training of the demo's model."""
    shards = folder / f"{store}-64"
    run = folder / f"run-{store}-{workers}"
    clip = open_shards(shards, "train").clips[0]
    settings = {"data": shards, "run_dir": run, "frame_size": 64, "channels": clip.channels}
    settings |= {"fps": clip.fps, "data_workers": workers, "max_clips": TRAINED, "log_every": 400}
    overrides = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "sdevid", "train", "--config", "configs/demo.yaml", *overrides]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ][1:]
    share = sum(line["data_wait"] for line in lines) / len(lines)
    rate = sum(line["clips_per_s"] for line in lines) / len(lines)
    row = {"store": store, "frame_size": 64, "reader": f"training, {workers} data_workers"}
    return row | {"clips_per_s": round(rate, 1), "share_of_step_waiting": round(share, 4)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--no_training", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/data.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in options.sizes:
            for store in ("npy", "mp4"):
                rounds = options.rounds * (4 if store == "npy" else 1)  # they take a tenth as long
                rows += _shown(compare(folder, store, size, options.clips, rounds))
        if not options.no_training:
            rows += _shown(waiting(folder, s, w) for s in ("npy", "mp4") for w in (0, 1))
    _write(options.output, rows)


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(row, flush=True)
        yield row


def _write(path: Path, rows: list[Row]) -> None:
    common = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": provenance.one_core(),
        "load": round(os.getloadavg()[0], 1),
    }
    packages = ("torch", "numpy", "av", "webdataset", "xxhash")
    common |= {package: importlib.metadata.version(package) for package in packages}
    fields = ["store", "frame_size", "reader", "clips_per_s", "times_webdataset"]
    fields += ["share_of_step_waiting", *common]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | common for row in rows)


if __name__ == "__main__":
    main()
