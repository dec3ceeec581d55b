"""A whole cut: sources in order, through worker processes, into shards; carries on if stopped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdevid.data import latents, payload, transforms
from sdevid.data.cut.account import account
from sdevid.data.cut.parts import (
    Fault,
    Job,
    Kind,
    PartClip,
    make_parts,
    read_notes,
    read_part,
    remove_part,
)
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.sheet import write_sheet
from sdevid.data.cut.tally import SplitTally
from sdevid.data.embedding import encode, member_name
from sdevid.data.folder import LocalFolder
from sdevid.data.index import read_index, read_split
from sdevid.data.json_file import read_json
from sdevid.data.mask import MASK
from sdevid.data.shard_file import FORMAT, ShardFile, write_json
from sdevid.data.shards import ShardIndex, read_dataset
from sdevid.data.spec import words
from sdevid.display import Display
from sdevid.errors import UserError
from sdevid.owner import own

_NAMED_FIRST = 20  # damaged sources, before a cut with too many of them stops early
_WORK = ".cut"  # state and parts of a cut that is not finished
_OURS = (
    "*.tar",
    "*.tar.part",
    "*.index.json",
    "*.index.npy",
    "*.npy.part",
    "*.json.part",
    "dataset.json",
    "quarantine.jsonl",
    "sheet.png",
)


@dataclass
class _CutState:
    """Where a cut stands after the last finished shard."""

    identity: dict[str, Any]
    next_source: int = 0
    clips_taken: int = 0  # of that source
    shards: dict[str, int] = field(default_factory=dict)  # finished ones, by split
    faults: list[tuple[str, str, Kind]] = field(default_factory=list)  # source, reason, kind
    notes: dict[str, list[int]] = field(default_factory=dict)  # name: videos, times in all
    repeating: int = 0  # clips that show a frame of their video more than once
    worded: int = 0  # clips with a caption or label


def cut(
    plan: Plan, folder: Path, *, workers: int, max_bad_fraction: float, overwrite: bool
) -> dict[str, Any]:
    """Write the shards of `plan` into `folder` and return what dataset.json says.

    A finished cut of the same plan is left as it is; an unfinished one is carried on. Raises
    UserError where the folder holds another cut, or more than `max_bad_fraction` of the sources
    are bad, OwnedError where another process cuts into the folder.
    """
    identity = plan.identity()
    if not overwrite and not (folder / _WORK).exists():
        finished = _earlier(folder / "dataset.json", identity)
        if finished is not None:  # nothing to write, perhaps nowhere to write it
            return finished
    with own(folder, "--output_dir", partial(print, file=sys.stderr)):
        return _cut(plan, folder, identity, workers, max_bad_fraction, overwrite)


def _cut(
    plan: Plan,
    folder: Path,
    identity: dict[str, Any],
    workers: int,
    max_bad_fraction: float,
    overwrite: bool,
) -> dict[str, Any]:
    if overwrite:
        _clear(folder)
    finished = _earlier(folder / "dataset.json", identity)
    if finished is None:
        state = _earlier(folder / _WORK / "state.json", identity)
        if state is None and any(folder.glob("*.tar")):
            raise UserError(
                f"--output_dir {folder} holds tars that no cut here has begun; give another folder"
            )
        (folder / _WORK / "parts").mkdir(parents=True, exist_ok=True)
        _Cutting(plan, folder, _resumed(state, folder) if state else _CutState(identity)).run(
            workers, max_bad_fraction
        )
        finished = read_dataset(LocalFolder(folder))
    write_sheet(folder, finished)  # again too where a kill came after dataset.json and before it
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    return finished


class _Cutting:
    """The part of a cut that runs in the main process."""

    def __init__(self, plan: Plan, folder: Path, state: _CutState) -> None:
        self.plan, self.folder, self.state = plan, folder, state
        self.faults = {name: Fault(reason, kind) for name, reason, kind in state.faults}
        self.recent: list[tuple[int, str]] = []  # names of faults since the last finished shard
        self.open: ShardFile | None = None
        self.done: list[Job] = []  # their parts go when the open shard is finished

    def run(self, workers: int, max_bad_fraction: float) -> None:
        """Cut what is left and write dataset.json."""
        write_json(self.folder / _WORK / "state.json", asdict(self.state))
        self._stop_if_bad(max_bad_fraction, _NAMED_FIRST)
        first = self.state.next_source
        parts = make_parts(self._jobs(first), workers)
        total = len(self.plan.sources)
        try:
            with Display(total, "videos", title="cutting", initial=first) as display:
                for job, fault in parts:
                    if fault is None:
                        self._store(job)
                    else:
                        self._name(job, fault)
                        self._stop_if_bad(max_bad_fraction, _NAMED_FIRST)
                    display.advance(1, f"{self._bad():,} damaged")
            self._finish_shard(total, 0)
            self._stop_if_bad(max_bad_fraction, 1)
        finally:
            if self.open is not None:
                self.open.discard()
        self._finish()

    def _jobs(self, first: int) -> Iterator[Job]:
        parts = self.folder / _WORK / "parts"
        for number in range(first, len(self.plan.sources)):
            yield Job(number, self.plan.sources[number][1], self.plan.spec, parts)

    def _store(self, job: Job) -> None:
        split = self.plan.sources[job.number][0]
        taken = self.state.clips_taken if job.number == self.state.next_source else 0
        if self.open is not None and not self.open.path.name.startswith(f"{split}-"):
            self._finish_shard(job.number, 0)
        for number, clip in enumerate(read_part(job)):
            if number < taken:
                continue
            if self.open is None:
                shard = f"{split}-{self.state.shards.get(split, 0):06d}.tar"
                self.open = ShardFile(self.folder, shard)
            self.state.repeating += clip.meta.get("repeated_frames", 0) > 0
            captions, embed = words(clip.meta), self.plan.embed
            self.state.worded += bool(captions)
            members = {clip.extension: clip.payload}
            if clip.mask is not None:
                members[MASK] = clip.mask
            if embed is not None:
                texts = clip.meta.get("captions") or [captions]
                members |= {member_name(k): encode(embed(t)) for k, t in enumerate(texts)}
            self.open.add(clip.key, clip.meta, members | self._latents(clip))
            if len(self.open) == self.plan.shard_size:
                self._finish_shard(job.number, number + 1)
        self.done.append(job)

    def _latents(self, clip: PartClip) -> dict[str, bytes]:
        """Encode a clip as its latents member; empty without an autoencoder."""
        autoencoder = self.plan.autoencoder
        if autoencoder is None:
            return {}
        time, height, width, channels = (
            clip.meta[name] for name in ("num_frames", "height", "width", "channels")
        )
        latents.check_picture(autoencoder.identity, height, channels, "--autoencoder")
        video = payload.decode(clip.extension, clip.payload, (time, height, width, channels))
        return {latents.LATENT: encode(autoencoder.stored(video))}

    def _finish_shard(self, next_source: int, clips_taken: int) -> None:
        if self.open is not None:
            self.open.close()
            split = self.open.path.name.rpartition("-")[0]
            self.state.shards[split] = self.state.shards.get(split, 0) + 1
            self.open = None
        self.state.next_source, self.state.clips_taken = next_source, clips_taken
        past = [name for number, name in self.recent if number < next_source]
        self.state.faults += [(name, *self.faults[name]) for name in past]
        self.recent = [fault for fault in self.recent if fault[0] >= next_source]
        for job in self.done:
            for name, times in read_notes(job).items():
                videos, total = self.state.notes.get(name, [0, 0])
                self.state.notes[name] = [videos + 1, total + times]
        write_json(self.folder / _WORK / "state.json", asdict(self.state))
        for job in self.done:
            remove_part(job)
        self.done.clear()

    def _name(self, job: Job, fault: Fault) -> None:
        self.faults[job.source.name] = fault
        self.recent.append((job.number, job.source.name))

    def _bad(self) -> int:
        return sum(fault.kind == "bad" for fault in self.faults.values())

    def _stop_if_bad(self, max_bad_fraction: float, least: int) -> None:
        """Raise UserError if at least `least` sources and more than the fraction are damaged."""
        total, bad = len(self.plan.sources), self._bad()
        if bad < least or bad <= max_bad_fraction * total:
            return
        self._write_quarantine()
        name = [name for name, fault in self.faults.items() if fault.kind == "bad"][-1]
        raise UserError(
            f"{bad} of {total} videos are damaged so far, more than --max_bad_fraction "
            f"{max_bad_fraction:g} allows; the last is {name}: {self.faults[name].reason}. "
            f"{self.folder / 'quarantine.jsonl'} names each; mend or remove them, or allow more"
        )

    def _write_quarantine(self) -> None:
        """Write a line for each source, file and row that is not used, damaged ones first."""
        named = [(name, *fault) for name, fault in self.faults.items()]
        named.sort(key=lambda line: line[2] != "bad")
        named += [(item.name, item.reason, "left out") for item in self.plan.listing.left_out]
        lines = [
            json.dumps({"source": name, "reason": why, "kind": kind}) + "\n"
            for name, why, kind in named
        ]
        (self.folder / "quarantine.jsonl").write_text("".join(lines), encoding="utf-8")

    def _finish(self) -> None:
        self._write_quarantine()
        splits = dict.fromkeys(split for split, _ in self.plan.sources)
        tallies = {split: self._tally(split) for split in splits}
        empty = [split for split, tally in tallies.items() if not tally.clips]
        if empty or not tallies:
            example = next(
                (f", e.g. {name} {fault.reason}" for name, fault in self.faults.items()), ""
            )
            raise UserError(
                f"no video gave a clip for split {', '.join(empty) or 'train'}{example}; "
                f"{self.folder / 'quarantine.jsonl'} says why each did not"
            )
        content = self._content(tallies)
        if self.plan.arrays is not None:
            content |= _described(self.plan.arrays, self.folder, content)
        write_json(self.folder / "dataset.json", content, indent=1)

    def _tally(self, split: str) -> SplitTally:
        tally = SplitTally()
        for number in range(self.state.shards.get(split, 0)):
            shard = f"{split}-{number:06d}.tar"
            tally.add(self.folder, shard, read_index(LocalFolder(self.folder), shard))
        return tally

    def _content(self, tallies: dict[str, SplitTally]) -> dict[str, Any]:
        """Assemble dataset.json: what the folder holds and how it was made."""
        spec = self.plan.spec
        content = {
            "format": FORMAT,
            **self.state.identity,
            "frame_size": spec.frame_size,
            "frame_width": spec.frame_shape[1],
            "channels": min(kind.channels for tally in tallies.values() for kind in tally.kinds),
            "fps": spec.fps,
            "clip_length": spec.clip_length,
            "store": spec.store,
            "splits": {split: tally.as_json() for split, tally in tallies.items()},
            "labels": sorted(set().union(*(tally.labels for tally in tallies.values()))),
            "quarantined": self._bad(),
            "left_out": len(self.faults) - self._bad() + len(self.plan.listing.left_out),
            "notes": {
                name: {"videos": videos, "times": times}
                for name, (videos, times) in sorted(self.state.notes.items())
            },
            "clips_with_repeated_frames": self.state.repeating,
            "clips_with_words": self.state.worded,
        }
        if self.plan.listing.sources:
            content |= account(self.plan.listing, self.faults)
            content["duplicate_videos"] = self.plan.duplicates
            content["remarks"] = self.plan.listing.remarks
            content["videos_with_several_captions"] = sum(
                len(source.captions) > 1 for source in self.plan.listing.sources
            )
            content["videos_with_captions"] = sum(bool(s.caption) for _, s in self.plan.sources)
        content |= self.plan.encoders()
        return content if self.plan.truth is None else {**content, "truth": self.plan.truth}


def _described(arrays: Mapping[str, Any], folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Describe type, channels and transform of arrays; the range is that of the training split."""
    splits = content["splits"]
    split = "train" if "train" in splits else next(iter(splits))
    description, local = content | {"dtype": arrays["dtype"]}, LocalFolder(folder)
    index = ShardIndex(local, split, description, read_split(local, splits[split]))
    try:
        every = range(len(index))
        statistics = transforms.statistics(index.read(number).observed for number in every)
    finally:
        index.close()
    return {
        "dtype": arrays["dtype"],
        "channel_names": arrays["channel_names"],
        "transform": transforms.fit(arrays["transform"], statistics, arrays["unit"]).as_json(),
    }


def _resumed(state: dict[str, Any], folder: Path) -> _CutState:
    try:
        return _CutState(**state)
    except TypeError as error:
        raise UserError(
            f"--output_dir {folder} holds a cut that another version of sdevid began; "
            "--overwrite makes it anew"
        ) from error


def _earlier(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read what an earlier cut left at `path`. UserError where that was a different cut."""
    if not path.is_file():
        return None
    dataset = read_json(LocalFolder(path.parent), path.name)
    before = dataset.get("identity", dataset)
    differs = _difference(before, identity)
    if differs:
        raise UserError(
            f"--output_dir {path.parent if path.name == 'dataset.json' else path.parent.parent} "
            f"holds another cut: {differs}; give another folder, or --overwrite to make it anew"
        )
    return dataset


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("dataset") != now["dataset"]:
        return f"dataset was {before.get('dataset')}, is {now['dataset']}"
    old, new = before.get("settings", {}), json.loads(json.dumps(now["settings"]))
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name) != new.get(name):
            return f"{name} was {old.get(name)}, is {new.get(name)}"
    return "" if before.get("inputs") == now["inputs"] else "the input files have changed"


def _clear(folder: Path) -> None:
    for pattern in _OURS:
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / _WORK, ignore_errors=True)
