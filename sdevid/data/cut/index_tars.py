"""Indices for WebDataset tars of any maker, so that they are read by offset in an exact order.

Nothing is cut or copied: the videos of a data set must be films or npy of one size already, as
video2dataset makes them with a resolution. Others, and longer films, are for make_shards.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from sdevid.data.cut.tally import SplitTally
from sdevid.data.cut.tars import TarMember, find_tars, samples
from sdevid.data.entry import ClipEntry, Kind
from sdevid.data.folder import Folder, FolderFile
from sdevid.data.npy import read_npy
from sdevid.data.open import open_folder
from sdevid.data.payload import CONTAINERS
from sdevid.data.schema import LIMITS, MOST_BYTES, parse_meta
from sdevid.data.shard_file import FORMAT, member_at, write_indices, write_json
from sdevid.data.spec import BadVideoError, LeftOutError
from sdevid.data.tar_index import cache_of
from sdevid.data.video.inspect import choose_stream, inspect
from sdevid.data.video.open import open_payload
from sdevid.display import Display
from sdevid.errors import UserError

_READ = (".npy", *(f".{name}" for name in CONTAINERS))
_SAID = (".json", ".txt", ".cls")


@dataclass(frozen=True)
class Indexed:
    """How many clips were indexed, and which samples were left out."""

    clips: int
    left_out: list[tuple[str, str]]  # samples, and why
    folder: Path  # of the index


def index_tars(location: str, output: Path | None = None, fps: float | None = None) -> Indexed:
    """Write an index of each tar at `location` and dataset.json into its folder, or `output`.

    Of tars behind a URL they lie in the user's cache, where `data=LOCATION` finds them.

    `fps` is the rate, in frames a second, of every npy whose json states none.
    Samples of another size or number of channels than most, or that do not decode, are left out
    with the reason. UserError where no sample is left, or the tars lie in several folders.
    """
    tars = find_tars(location)
    folders = {folder for folder, _ in tars}
    if len(folders) > 1:
        raise UserError(
            f"{location} names tars of {len(folders)} folders, such as {min(folders)}, but an "
            "index is of one; give a list of each"
        )
    folder = open_folder(folders.pop())
    kept = cache_of(location) if "://" in location else Path(folder.location)
    output = output or kept
    samples: dict[str, list[ClipEntry]] = {}
    left_out: list[tuple[str, str]] = []
    with Display(len(tars), "tars", title="indexing") as display:
        for _, tar in tars:
            samples[tar] = list(_clips(folder, tar, fps, left_out))
            display.advance(1)
    shapes = Counter(_form(clip) for clips in samples.values() for clip in clips)
    if not shapes:
        raise UserError(
            f"no sample of {location} can be read as it is"
            + (f"; e.g. {' '.join(left_out[0])}" if left_out else "")
            + "; sdevid shards --dataset webdataset cuts them"
        )
    usual = shapes.most_common(1)[0][0]
    for clips in samples.values():
        for clip in [clip for clip in clips if _form(clip) != usual]:
            clips.remove(clip)
            left_out.append((clip.source, f"is {_form(clip)}, most are {usual}"))
    _write(folder, output, samples, left_out)
    return Indexed(sum(map(len, samples.values())), left_out, output)


def _form(clip: ClipEntry) -> str:
    rate = f"{clip.channels} channels at {clip.fps:g} a second"
    return f"{clip.width} x {clip.height} pixels of {rate}"


def _clips(
    folder: Folder, tar: str, fps: float | None, left_out: list[tuple[str, str]]
) -> Iterator[ClipEntry]:
    """Yield the index entries of a tar; samples of no use go to `left_out`, with the reason."""
    stream = io.BufferedReader(FolderFile(folder, tar))
    for key, sample, fault in samples(folder, tar):
        name = f"{tar}/{key}"
        payloads = [ending for ending in sample if ending in _READ]
        if fault is not None or len(payloads) != 1:
            left_out.append((name, fault or _number_fault(payloads)))
            continue
        wanted = {ending: sample[ending] for ending in (*payloads, *_SAID) if ending in sample}
        try:
            content = {ending: _read(stream, member) for ending, member in wanted.items()}
            meta = parse_meta(content[".json"]) if ".json" in content else {}
            stated = fps if meta.get("fps") is None else meta["fps"]
            shape = _kind(payloads[0], content[payloads[0]], stated)
        except (ValueError, BadVideoError, LeftOutError, av.FFmpegError) as error:
            left_out.append((name, f"does not read: {error}"))
            continue
        members = {
            ending[1:]: member_at(member.offset, content[ending])
            for ending, member in wanted.items()
        }
        label = content.get(".cls", b"").decode(errors="replace").strip()
        label = label or str(meta.get("label") or "")
        unique = f"{tar.removesuffix('.tar')}-{key}"
        yield ClipEntry(tar, unique, name, label, *shape, members)


def _read(stream: io.BufferedReader[Any], member: TarMember) -> bytes:
    stream.seek(member.offset)
    content = stream.read(member.size)
    if len(content) != member.size:
        raise ValueError("the tar ends before it")
    if not member.name.lower().endswith(_READ) and member.size > MOST_BYTES["KEY.json"]:
        raise ValueError(f"{member.name} has {member.size:,} bytes")
    return content


def _number_fault(payloads: list[str]) -> str:
    if payloads:
        return f"has several videos: {', '.join(payloads)}"
    return f"has none of {', '.join(_READ)}"


def _kind(ending: str, content: bytes, fps: Any) -> Kind:
    """Measure length, rate and shape of a video by decoding it; `fps` is an npy's stated rate."""
    if ending == ".npy":
        return _array_kind(content, fps)
    kind = CONTAINERS[ending[1:]]
    with open_payload(content, kind) as container:
        rate = 1 / inspect(container).period
    with open_payload(content, kind) as container:
        stream = choose_stream(container)
        count = sum(1 for _ in container.decode(stream))
        return Kind(count, round(float(rate), 6), stream.height, stream.width, 3)


def _array_kind(content: bytes, fps: Any) -> Kind:
    values = read_npy(content)
    if values.ndim != 4 or values.dtype != np.uint8:
        shape = f"{values.dtype} {values.shape}"
        raise ValueError(f"it holds {shape}, not uint8 (time, height, width, channels)")
    if fps is None:
        raise ValueError("its json states no fps; give --fps, the rate of such arrays")
    low, high = LIMITS["fps"]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not low < fps <= high:
        raise ValueError(f"its json has fps {fps!r}, not a number above 0")
    return Kind(values.shape[0], float(fps), *values.shape[1:])


def _write(
    folder: Folder,
    output: Path,
    samples: dict[str, list[ClipEntry]],
    left_out: list[tuple[str, str]],
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    tally = SplitTally()
    for tar, clips in samples.items():
        if clips:
            write_indices(output, tar, clips, folder.size(tar))
            tally.add(output, tar, clips)
    first = next(clip for clips in samples.values() for clip in clips)
    dataset = {
        "format": FORMAT,
        "dataset": "webdataset",
        "frame_size": first.height,
        "channels": first.channels,
        "fps": first.fps,
        "clip_length": min(kind.num_frames for kind in tally.kinds),
        "store": first.extension,
        "splits": {"train": tally.as_json()},
        "labels": sorted(tally.labels),
        "quarantined": 0,
        "left_out": len(left_out),
    }
    write_json(output / "dataset.json", dataset, indent=1)
