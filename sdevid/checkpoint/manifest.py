"""What a checkpoint says of itself: progress, shapes, sizes and hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter

from sdevid.errors import UserError

FORMAT = 2
FORMATS = (1, 2)  # that can be read; 1 has no hash of its own and no identity of the data
NAME = "manifest.json"
_MOST_BYTES = 64 * 2**20


@dataclass
class Progress:
    """How far a run has come: clips consumed, optimizer steps, those skipped included.

    `faults` is the state of the recovery policy, `cursors` that of a stream without an index, as
    of a save.
    """

    clips: int = 0
    step: int = 0
    faults: dict[str, Any] = field(default_factory=dict)
    cursors: list[dict[str, Any]] = field(default_factory=list)

    def advance(self, clips: int) -> None:
        """Count one optimizer step of `clips` clips."""
        self.clips, self.step = self.clips + clips, self.step + 1

    def passed(self, every: int, clips: int) -> bool:
        """Check whether the last step, of `clips` clips, reached a multiple of `every` clips."""
        return self.clips // every > (self.clips - clips) // every


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    format: int
    clips: int
    step: int
    world_size: int
    zero_stage: int
    parameters: dict[str, list[int]]  # shape by name, in the objective's order
    files: dict[str, tuple[int, str]]  # size in bytes and sha256, by name within the folder
    faults: dict[str, Any] = field(default_factory=dict)  # see Progress
    groups: list[int] = field(default_factory=list)  # the optimizer's group of each parameter
    sums: dict[str, str] = field(default_factory=dict)  # of weights and moments, however cut
    probe: float | None = None  # loss of the probe batch under these weights
    score: float | None = None  # the metric by which the best one is kept
    data: dict[str, int | str] = field(default_factory=dict)  # identity of the data trained on
    total_clips: int = 0  # of the whole run, by which its schedules were drawn; 0: not known
    cursors: list[dict[str, Any]] = field(default_factory=list)  # of data_reader=webdataset
    sha256: str = ""  # of all the other fields


_READER = TypeAdapter(Manifest)


def signed(manifest: Manifest) -> Manifest:
    """Add to the manifest the hash of its other fields, which is the last line of its file."""
    return replace(manifest, sha256=_digest(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint. Raises UserError where none can be relied on."""
    try:
        if (folder / NAME).exists() and not (folder / NAME).is_file():
            raise ValueError("it is no regular file")
        with (folder / NAME).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        fields = json.loads(text)
        version = fields.get("format") if isinstance(fields, dict) else None
        if version in FORMATS:
            return _checked(folder, _READER.validate_json(text, strict=True))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} is no whole checkpoint: manifest.json: {reason}") from error
    raise UserError(f"checkpoint {folder} has format {version}; this version reads {FORMAT}")


def _checked(folder: Path, manifest: Manifest) -> Manifest:
    """Check the manifest. Raises ValueError where it contradicts its hash, name or limits."""
    if manifest.format > 1 and manifest.sha256 != _digest(manifest):
        raise ValueError("it does not have the hash that it was written with")
    if folder.name.startswith("step_") and folder.name != f"step_{manifest.step}":
        raise ValueError(f"it is of step {manifest.step}, but the folder is {folder.name}")
    if manifest.step < 0 or manifest.clips < manifest.step:
        raise ValueError(f"{manifest.clips} clips in {manifest.step} steps cannot be")
    if not manifest.files:
        raise ValueError("it names no files")
    for name in manifest.files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"it names {name}, which is outside the folder")
    return manifest


def _digest(manifest: Manifest) -> str:
    fields = asdict(manifest)
    del fields["sha256"]
    if not manifest.cursors:  # as before there were any
        del fields["cursors"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
