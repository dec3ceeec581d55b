"""What a checkpoint says of itself: progress, shapes, sizes and hashes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdevid.errors import UserError

FORMAT = 1


@dataclass
class Progress:
    """How far a run has come: clips consumed, optimizer steps, those skipped included.

    `faults` is the state of the recovery policy, as of a save.
    """

    clips: int = 0
    step: int = 0
    faults: dict[str, Any] = field(default_factory=dict)

    def advance(self, clips: int) -> None:
        """Count one optimizer step of `clips` clips."""
        self.clips, self.step = self.clips + clips, self.step + 1

    def passed(self, every: int, clips: int) -> bool:
        """Whether the last step, of `clips` clips, reached a multiple of `every` clips."""
        return self.clips // every > (self.clips - clips) // every


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says of its checkpoint."""

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


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint. Raises UserError where there is none that can be read."""
    try:
        fields = json.loads((folder / "manifest.json").read_text())
        found = fields.get("format")
        if found == FORMAT:
            return Manifest(**fields)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is no whole checkpoint: manifest.json: {error}") from error
    raise UserError(f"checkpoint {folder} has format {found}; this version reads {FORMAT}")
