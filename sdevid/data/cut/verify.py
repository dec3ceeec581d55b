"""Whether shards hold what their index says, byte for byte and frame for frame."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdevid.data import embedding, latents, mask
from sdevid.data.columns import columns_name
from sdevid.data.embedding import TEXT
from sdevid.data.entry import ClipEntry, Member
from sdevid.data.folder import Folder, FolderFile
from sdevid.data.index import kinds_of, open_columns, read_index, read_split
from sdevid.data.json_file import read_json
from sdevid.data.mask import MASK
from sdevid.data.open import open_folder
from sdevid.data.payload import decode
from sdevid.data.schema import MOST_BYTES, parse_json
from sdevid.data.shard_file import index_name
from sdevid.data.shards import read_dataset
from sdevid.errors import UserError

_AHEAD = 2**20  # bytes read at once
_DESCRIBED = ("source", "label", "num_frames", "fps", "height", "width", "channels")


class _Kind(NamedTuple):
    """What dataset.json says of every clip."""

    width: int  # of embeddings
    dtype: str  # of frames
    autoencoder: dict[str, Any] | None  # of latents


@dataclass(frozen=True)
class ShardReport:
    """What was found in one tar."""

    shard: str
    clips: int
    faults: tuple[str, ...]


def check_shard(location: str, shard: str, decoding: bool) -> ShardReport:
    """Compare the tar `shard` with its index; with `decoding`, decode every clip too."""
    try:
        folder = open_folder(location)
        dataset = read_dataset(folder)
        entries, size, faults = _indices(folder, shard, dataset)
        encoder = dataset.get("text_encoder") or {}
        autoencoder = dataset.get("autoencoder")
        kind = _Kind(encoder.get("width", 0), dataset.get("dtype", "uint8"), autoencoder)
        faults += _tar_faults(folder, shard, entries, size, decoding, kind)
    except Exception as error:  # whatever bytes of any origin lead to is a fault of the shard
        return ShardReport(shard, 0, (f"{shard}: {error}",))
    return ShardReport(shard, len(entries), tuple(f"{shard}: {fault}" for fault in faults))


def _indices(
    folder: Folder, shard: str, dataset: dict[str, Any]
) -> tuple[Sequence[ClipEntry], int, list[str]]:
    """Read the clips of a tar, its size in bytes, and where its two indices differ."""
    for split in dataset["splits"].values():
        if shard not in split.get("indices", {}):
            continue
        columns = open_columns(folder, shard, split["indices"][shard], kinds_of(split))
        try:
            same = read_index(folder, shard) == list(columns)
        except UserError as error:
            return columns, columns.tar_size, [] if "missing" in str(error) else [str(error)]
        name = index_name(shard)
        faults = [] if same else [f"{name} says something else than {columns_name(shard)}"]
        return columns, columns.tar_size, faults
    return read_index(folder, shard), read_json(folder, index_name(shard))["size"], []


def folder_faults(folder: Folder, dataset: dict[str, Any]) -> Iterator[str]:
    """Yield each inconsistency between dataset.json, the indices and the files of the folder."""
    side_of: dict[str, str] = {}
    embedded = dataset.get("text_encoder") is not None
    keys: Counter[str] = Counter()
    for split, entry in dataset["splits"].items():
        try:
            table = read_split(folder, entry)
        except UserError:
            continue  # check_shard names it
        clips = list(table)
        if len(clips) != entry["clips"]:
            yield f"split {split} has {len(clips)} clips, but dataset.json says {entry['clips']}"
        keys.update(clip.key for clip in clips)
        odd = [clip.key for clip in clips if (TEXT in clip.members) != embedded]
        if odd:
            have, names = ("lack", "a") if embedded else ("have", "no")
            yield (
                f"{len(odd)} clips, as {odd[0]}, {have} a {TEXT}, but dataset.json names {names} "
                "text_encoder"
            )
        try:
            latents.check_all(table, dataset, folder.location)
        except UserError as error:
            yield str(error)
        for source in sorted({clip.source for clip in clips}):
            if side_of.setdefault(source, split) != split:
                yield f"source {source} is in both {side_of[source]} and {split}"
    yield from (f"key {key} occurs {count} times" for key, count in keys.items() if count > 1)
    named = {shard for entry in dataset["splits"].values() for shard in entry["shards"]}
    for name in folder.names() or ():
        if ".tar" in name and name not in named:
            yield f"{name} is not named in dataset.json"


def _tar_faults(
    folder: Folder, shard: str, entries: Sequence[ClipEntry], size: int, decoding: bool, kind: _Kind
) -> Iterator[str]:
    found_size = folder.size(shard)
    if found_size != size:
        yield f"has {found_size} bytes, but the index says {size}"
    own = any(_own_key(entry) is not None for entry in entries)
    indexed = {
        f"{_own_key(entry) or entry.key}.{extension}": (entry, extension)
        for entry in entries
        for extension in entry.members
    }
    file = io.BufferedReader(FolderFile(folder, shard), _AHEAD)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            indexed_entry = indexed.pop(_lower_ending(info.name) if own else info.name, None)
            if indexed_entry is None:
                if not own:  # other makers' tars hold also what no index takes up
                    yield f"member {info.name} is not in the index"
                continue
            entry, extension = indexed_entry
            member = entry.members[extension]
            file.seek(member.offset)
            content = file.read(member.size)
            fault = _member_fault(info, member, content) or _content_fault(
                entry, extension, content, decoding, kind
            )
            if fault:
                yield f"member {info.name} {fault}"
    yield from (f"member {name} is in the index, but not in the tar" for name in indexed)


def _own_key(entry: ClipEntry) -> str | None:
    """The sample's key in a tar of another maker, as `index_tars` names it; None of a cut clip."""
    key = entry.source.removeprefix(f"{entry.shard}/")
    return key if entry.key == f"{entry.shard.removesuffix('.tar')}-{key}" else None


def _lower_ending(name: str) -> str:
    place, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{place}{slash}{stem}{dot}{ending.lower()}"


def _member_fault(info: tarfile.TarInfo, member: Member, content: bytes) -> str | None:
    if (info.offset_data, info.size) != (member.offset, member.size):
        return (
            f"lies at {info.offset_data} with {info.size} bytes, but the index says "
            f"{member.offset} and {member.size}"
        )
    if hashlib.sha256(content).hexdigest() != member.sha256:
        return "has another sha256 than the index says"
    return None


def _content_fault(
    entry: ClipEntry, extension: str, content: bytes, decoding: bool, kind: _Kind
) -> str | None:
    try:
        if extension == "json":
            meta = parse_json(content, MOST_BYTES["KEY.json"])
            if _own_key(entry) is not None:
                return None
            wrong = [name for name in _DESCRIBED if meta.get(name) != getattr(entry, name)]
            return f"differs from the index in {', '.join(wrong)}" if wrong else None
        if extension == TEXT:
            embedding.decode(content, kind.width)
        if extension == latents.LATENT and kind.autoencoder is not None:
            shape = latents.shape(entry, kind.autoencoder)
            decode("npy", content, shape, latents.DTYPE)
        if extension == MASK:
            mask.decode(content, entry.shape)
        if decoding and extension == entry.extension:
            decode(extension, content, entry.shape, kind.dtype)
    except Exception as error:  # whatever a decoder makes of bytes of any origin
        return f"does not read: {error}"
    return None
