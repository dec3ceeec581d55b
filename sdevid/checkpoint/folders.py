"""The folders of checkpoints: found, verified, published, removed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

from sdevid.atomic_file import replace_text, sync_folder
from sdevid.checkpoint.manifest import NAME, Manifest, signed

_STEP = re.compile(r"step_(0|[1-9][0-9]{0,17})")


def folder_of(run_dir: Path, step: int) -> Path:
    """Name the folder of a step's checkpoint."""
    return run_dir / "checkpoints" / f"step_{step}"


def steps(run_dir: Path) -> list[int]:
    """List the steps at which the run has checkpoints, newest first, without checking them."""
    names = (path.name for path in (run_dir / "checkpoints").glob("step_*"))
    matches = (_STEP.fullmatch(name) for name in names)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def faults(folder: Path, manifest: Manifest, share: slice = slice(None)) -> list[str]:
    """Check by size and hash the checkpoint's files that `share` picks; list what is wrong."""
    wrong = []
    for name, (size, sha256) in sorted(manifest.files.items())[share]:
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != size:
            wrong.append(f"{name} has {path.stat().st_size} bytes of {size}")
        elif digest(path) != sha256:
            wrong.append(f"{name} does not have the hash that it was written with")
    return wrong


def digest(path: Path, *, sync: bool = False) -> str:
    """Compute a file's SHA-256; with `sync`, the file is on the disk when this returns."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[Path]:
    """List the files of a checkpoint but its manifest, in order."""
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path.name != NAME)


def publish(partial: Path, folder: Path, manifest: Manifest) -> None:
    """Write the manifest, give the finished checkpoint its name and point `latest` at it."""
    manifest = signed(manifest)
    replace_text(partial / NAME, json.dumps(asdict(manifest), indent=1) + "\n")
    if folder.exists():  # a damaged one, which was not resumed from
        remove(folder)
    partial.replace(folder)
    sync_folder(folder.parent)
    latest = folder.parent.parent / "latest"
    if latest.is_dir() and not latest.is_symlink():
        latest.rmdir()  # an empty one stands in the way, and says nothing
    replace_text(latest, f"checkpoints/{folder.name}\n{manifest.sha256}\n")


def remove(folder: Path) -> None:
    """Delete a checkpoint, renamed first, so that a half-deleted one never bears its name."""
    doomed = folder.with_name(f".deleted-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def tidy(run_dir: Path) -> None:
    """Delete half-written and half-deleted checkpoints that a killed process left behind."""
    for left in (run_dir / "checkpoints").glob(".*"):
        shutil.rmtree(left, ignore_errors=True)
