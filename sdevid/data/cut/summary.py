"""What a cut gave, in a few lines: clips, what was left out and why, and what is worth a look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdevid.data.cut.sheet import NAME

_FEW_VIDEOS = 8  # in a split, under which what is measured on it says little
_SHOWN = 5  # files and rows named here


def summary(content: dict[str, Any], folder: Path, seconds: float) -> Iterator[str]:
    """Yield the lines of the summary; `content` is dataset.json of `folder`."""
    yield f"{folder}: {content['dataset']}, {content['store']}, {seconds:.1f} s"
    for split, part in content["splits"].items():
        size = sum((folder / shard).stat().st_size for shard in part["shards"])
        yield (
            f"  {split}: {part['clips']} clips of {part['videos']} videos in "
            f"{len(part['shards'])} shards, {size / 2**20:.1f} MiB"
        )
    if content["clips_with_repeated_frames"]:
        yield (
            f"  {content['clips_with_repeated_frames']} clips repeat frames: their videos have "
            f"fewer than {content['fps']:g} a second"
        )
    for name, note in content.get("notes", {}).items():
        yield f"  {name}: {note['times']} in {note['videos']} videos"
    if "files" in content:
        yield from _filmed(content, folder)


def _filmed(content: dict[str, Any], folder: Path) -> Iterator[str]:
    files, rows = content["files"], content["rows"]
    yield (
        f"  {files['found']} files: {files['used']} used, {files['quarantined']} bad videos, "
        f"{files['left_out']} left out, {files['lists']} lists"
    )
    if rows["found"]:
        yield (
            f"  {rows['found']} rows: {rows['used']} used, {rows['quarantined']} of bad videos, "
            f"{rows['left_out']} left out"
        )
    if content["videos_with_captions"]:
        videos = sum(part["videos"] for part in content["splits"].values())
        several = content["videos_with_several_captions"]
        more = f"; {several} have several, of which training draws one" if several else ""
        yield (
            f"  {content['videos_with_captions']} videos have a caption, of {videos} with clips"
            f"{more}"
        )
    if content["duplicate_videos"]:
        yield f"  {content['duplicate_videos']} videos are exact copies; they share a split"
    for split, part in content["splits"].items():
        if part["videos"] < _FEW_VIDEOS:
            yield f"  warning: split {split} has {part['videos']} videos; fewer than {_FEW_VIDEOS}"
    yield f"  {folder / NAME} shows clips of all splits with their captions"
    yield from _unused(folder / "quarantine.jsonl")
    remarks = content.get("remarks", [])
    yield from (f"  {remark}" for remark in remarks[:_SHOWN])
    if len(remarks) > _SHOWN:
        yield f"  ... and {len(remarks) - _SHOWN} more such rows, in dataset.json"


def _unused(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines[:_SHOWN]:
        item = json.loads(line)
        yield f"    {item['kind']}: {item['source']} {item['reason']}"
    if len(lines) > _SHOWN:
        yield f"    ... and {len(lines) - _SHOWN} more in {path}"
