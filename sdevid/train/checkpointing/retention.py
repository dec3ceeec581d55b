"""Which checkpoints of a run are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sdevid import checkpoint
from sdevid.checkpoint import Manifest
from sdevid.config import CheckpointConfig
from sdevid.errors import UserError

PIN = "pinned"  # a file of this name in a checkpoint's folder keeps it for ever


def prune(run_dir: Path, settings: CheckpointConfig) -> None:
    """Delete the checkpoints that no rule of `settings` keeps."""
    steps = checkpoint.steps(run_dir)
    held = kept(run_dir, steps, settings)
    for step in steps:
        if step not in held:
            checkpoint.remove(checkpoint.folder_of(run_dir, step))


def kept(run_dir: Path, steps: Sequence[int], settings: CheckpointConfig) -> set[int]:
    """Choose the steps to keep: the newest, one of each stretch of clips, the best, the pinned."""
    newest = sorted(steps, reverse=True)[: settings.keep]
    pinned = {s for s in steps if (checkpoint.folder_of(run_dir, s) / PIN).exists()}
    manifests = dict(_manifests(run_dir, sorted(steps)))
    held = {*newest, *pinned, *settings.pin} | _one_a_stretch(manifests, settings.keep_every)
    best = _best(manifests, settings)
    return (held if best is None else held | {best}) & set(steps)


def _manifests(run_dir: Path, steps: Sequence[int]) -> list[tuple[int, Manifest]]:
    manifests = []
    for step in steps:
        try:
            manifests.append((step, checkpoint.read_manifest(checkpoint.folder_of(run_dir, step))))
        except UserError:  # damaged: only its age keeps it
            continue
    return manifests


def _one_a_stretch(manifests: dict[int, Manifest], every: int | None) -> set[int]:
    """Choose the first checkpoint at or past each multiple of `every` clips."""
    if every is None:
        return set()
    first: dict[int, int] = {}
    for step, manifest in manifests.items():
        first.setdefault(manifest.clips // every, step)
    return {step for stretch, step in first.items() if stretch}


def _best(manifests: dict[int, Manifest], settings: CheckpointConfig) -> int | None:
    if settings.best is None:
        return None
    sign = 1 if settings.best_is == "lowest" else -1
    known = ((s, m.score) for s, m in manifests.items() if m.score is not None)
    scores = {step: sign * score for step, score in known if math.isfinite(score)}
    return min(scores, key=lambda step: scores[step]) if scores else None
