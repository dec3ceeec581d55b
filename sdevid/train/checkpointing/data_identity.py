"""Which data a run is trained on: what must not change unnoticed between two starts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from sdevid.data.shards import ShardIndex
from sdevid.data.webdataset_reader import TarStream

_DIGITS = 12  # of a digest


@dataclass(frozen=True)
class DataIdentity:
    """Digests of dataset.json and of every clip's place, size and hash, and the clip count."""

    clips: int
    dataset: str
    index: str

    def fields(self) -> dict[str, int | str]:
        """List the fields as a manifest holds them."""
        return asdict(self)


def identify(index: ShardIndex | TarStream) -> DataIdentity:
    """Identify the opened split, wherever its folder lies.

    Of tars without an index only their names are known.
    """
    described = json.dumps(index.dataset, sort_keys=True).encode()
    return DataIdentity(
        clips=len(index) if isinstance(index, ShardIndex) else 0,
        dataset=hashlib.sha256(described).hexdigest()[:_DIGITS],
        index=index_digest(index),
    )


def index_digest(index: ShardIndex | TarStream) -> str:
    """Hash every clip's place, size and hash, in their order; the same in every version.

    A stream is identified by the tars' names, binary indices by their own sha256, against which
    each is checked when opened.
    """
    digest = hashlib.sha256()
    if isinstance(index, TarStream):
        digest.update(json.dumps(index.names).encode())
        return digest.hexdigest()[:_DIGITS]
    parts = index.clips.parts
    if all(part.sha256 is not None for part in parts):
        digest.update(json.dumps([[part.shard, part.sha256] for part in parts]).encode())
        return digest.hexdigest()[:_DIGITS]
    for clip in index.clips:
        members = sorted((n, m.offset, m.size, m.sha256) for n, m in clip.members.items())
        digest.update(json.dumps([clip.shard, clip.key, members]).encode())
    return digest.hexdigest()[:_DIGITS]


def difference(saved: dict[str, int | str], here: DataIdentity) -> str | None:
    """Describe how the saved identity differs from this one, by both values; None if equal."""
    now = here.fields()
    if not saved or saved == now:
        return None
    names = {"clips": "{} clips", "dataset": "dataset.json {}", "index": "index {}"}
    differing = [name for name in names if saved.get(name) != now[name]]
    shown = ["clips", *(name for name in differing if name != "clips")]
    there = ", ".join(names[n].format(saved.get(n, "unknown")) for n in shown)
    return f"{there} there; {', '.join(names[n].format(now[n]) for n in shown)} now"
