"""Every reader of files that may come from strangers, as a function of the bytes of one file.

Each returns, or raises the error that it declares: anything else, or a hang, is a fault.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from sdevid import checkpoint, clock, owner, tensor_file
from sdevid.checkpoint import Manifest, Slice
from sdevid.config import dump, parse
from sdevid.data.folder import LocalFolder
from sdevid.data.index import read_index
from sdevid.data.payload import EXTENSION, Store, decode, encode
from sdevid.data.schema import parse_metadata
from sdevid.data.shard_file import FORMAT, index_name
from sdevid.data.shards import read_dataset
from sdevid.errors import UserError
from sdevid.report.page import page
from sdevid.report.record import read as read_record
from sdevid.settings.yaml_file import read_settings
from sdevid.train.record import metrics_file

SHAPE = (4, 16, 16, 1)
VIDEO = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
SHARD = "train-000000.tar"


@dataclass(frozen=True)
class Reader:
    """A reader in `folder`, to which it writes the bytes; `seeds` are sound files."""

    read: Callable[[Path, bytes], object]
    seeds: tuple[bytes, ...]
    refusals: tuple[type[Exception], ...] = (UserError,)

    def __call__(self, folder: Path, content: bytes) -> None:
        """Read `content`, or have it refused."""
        with suppress(*self.refusals):
            self.read(folder, content)


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """A reader of the folder in which the file `name` holds the bytes."""

    def written(folder: Path, content: bytes) -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(folder)

    return written


def _payload(store: Store) -> Reader:
    name = EXTENSION[store]
    return Reader(
        lambda _, content: decode(name, content, SHAPE), (encode(store, VIDEO, 8.0),), (ValueError,)
    )


def _clip() -> dict[str, object]:
    member = {"offset": 0, "size": 10, "sha256": "0" * 64, "xxh3": "0" * 32}
    return {
        **{"key": "a", "source": "b.mp4", "label": "c", "num_frames": 4, "fps": 8.0},
        **{"height": 16, "width": 16, "channels": 1, "members": {"json": member, "npy": member}},
    }


def _manifest() -> bytes:
    files: dict[str, tuple[int, str]] = {"raw-00000.safetensors": (8, "0" * 64)}
    one = Manifest(checkpoint.FORMAT, 4, 1, 1, 0, {"a": [2, 3]}, files)
    return _as_json(dataclasses.asdict(checkpoint.signed(one)))


def _weights(folder: Path, layout: bytes) -> object:
    """The weights of a checkpoint of one parameter, whose layout is `layout`."""
    for name in ("raw", "buffers"):
        tensors = {"000000": torch.zeros(6)}
        tensor_file.save(tensors, folder / f"{name}-00000.safetensors")
    tensor_file.save({}, folder / "buffers.safetensors")
    (folder / "layout-00000.json").write_bytes(layout)
    (folder / "manifest.json").write_bytes(_manifest())
    return checkpoint.read_weights(folder, "raw")


RESULTS = {
    "protocol": {"clips": 3, "split": "val", "checkpoint": "x", "weights": "ema", "seed": 0},
    "provenance": {
        "command": "c",
        "machine": {"gpus": [], "processor": "x", "cores": 2, "memory_gib": 4.0, "system": "y"},
        "versions": {"torch": "2"},
        "seconds": 3.0,
    },
    "elbo": {"elbo": {"mean": -1.0, "standard_error": 0.1, "interval": [-1.2, -0.8]}},
}
LINES = (
    b'{"clips": 4, "step": 1, "loss": 2.5, "time": 1.0}\n{"clips": 8, "step": 2, "loss": null}\n'
)
LAYOUT = {"000000": [dataclasses.asdict(Slice("a", 0, 0, 6))]}
OWNER = dataclasses.asdict(owner.Owner("t", "h", "m", 1, 2, "now", "7", 0, "1"))
DATASET = {"format": FORMAT, "splits": {"train": {"shards": [SHARD], "clips": 1}}}
META = {"caption": "a", "times": {"ticks": [0, 1], "per_second": 8}}


def _page_of(name: str) -> Callable[[Path, bytes], object]:
    return _file(name, lambda folder: page(read_record(folder / "run")))


def _forget(folder: Path) -> None:
    metrics_file.forget_after(folder / "metrics.jsonl", 4)


READERS: dict[str, Reader] = {
    "dataset.json": Reader(
        _file("dataset.json", lambda folder: read_dataset(LocalFolder(folder))),
        (_as_json(DATASET),),
    ),
    "index": Reader(
        _file(index_name(SHARD), lambda folder: read_index(LocalFolder(folder), SHARD)),
        (_as_json({"size": 2048, "clips": [_clip()]}),),
    ),
    "KEY.json": Reader(
        lambda _, content: parse_metadata({"json": content}), (_as_json(META),), (ValueError,)
    ),
    "npy": _payload("npy"),
    "jpg": _payload("jpeg"),
    "mp4": _payload("mp4"),
    "manifest.json": Reader(_file("manifest.json", checkpoint.read_manifest), (_manifest(),)),
    "layout.json": Reader(_weights, (_as_json(LAYOUT),)),
    "safetensors": Reader(
        _file("a.safetensors", lambda folder: tensor_file.load(folder / "a.safetensors")),
        (save({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}),),
    ),
    "config.yaml": Reader(
        _file("c.yaml", lambda folder: parse(clock.of_saved(read_settings(folder / "c.yaml")))),
        (dump(parse({})).encode(), b"sde: {hidden: 8}\nfps: 8\n"),
    ),
    "results.json": Reader(_page_of("run/results.json"), (_as_json(RESULTS),)),
    "metrics.jsonl": Reader(_page_of("run/metrics.jsonl"), (LINES,)),
    "metrics.jsonl at resume": Reader(_file("metrics.jsonl", _forget), (LINES,)),
    "owner": Reader(_file(owner.NAME, owner.read), (_as_json(OWNER),)),
}


def prepare(folder: Path) -> None:
    """Make what readers expect beside their file."""
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text(dump(parse({})), encoding="utf-8")
