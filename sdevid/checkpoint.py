"""What a checkpoint holds, and how it is written, verified, found again and kept.

`checkpoints/step_N/` of a run holds DeepSpeed's files; for each rank R its float32 weights and
their average (`raw-R.safetensors`, `ema-R.safetensors`, laid out by `layout-R.json`) and random
state (`rng-R.safetensors`); `buffers.safetensors`; `config.yaml`; and `manifest.json` with
progress, shapes, sizes and hashes. It is written aside and renamed when every rank has finished.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdevid.errors import UserError

FORMAT = 1
Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Slice:
    """`count` elements of a flattened parameter: where they start in it, and in their piece."""

    name: str
    in_parameter: int
    in_piece: int
    count: int


@dataclass(frozen=True)
class Piece:
    """A float32 tensor of some rank, made of slices of parameters and perhaps padding."""

    tensor: Tensor
    slices: list[Slice]


@dataclass
class Progress:
    """How far a run has come: clips consumed, optimizer steps, those skipped included.

    `faults` is the state of the remedies for lost steps (sdevid.train.ladder), as of a save.
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


def folder_of(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run_dir / "checkpoints" / f"step_{step}"


def steps(run_dir: Path) -> list[int]:
    """Steps at which the run has checkpoints, newest first; whether they are whole is not said."""
    names = (path.name for path in (run_dir / "checkpoints").glob("step_*"))
    return sorted((int(n[5:]) for n in names if n[5:].isdigit()), reverse=True)


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


def faults(folder: Path, manifest: Manifest, share: slice = slice(None)) -> list[str]:
    """What is wrong with those of a checkpoint's files that `share` picks, by size and hash."""
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
    """SHA-256 of a file; with `sync`, the file is on the disk when this returns."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(folder: Path, which: Weights) -> dict[str, Tensor]:
    """Every parameter of a checkpoint, put together on the CPU from all ranks, and the buffers.

    Reads neither pickles nor DeepSpeed's files. Raises UserError where a part is missing.
    """
    manifest = read_manifest(folder)
    flat = {n: torch.empty(math.prod(shape)) for n, shape in manifest.parameters.items()}
    filled = dict.fromkeys(flat, 0)
    for path in sorted(folder.glob("layout-*.json")):
        file = folder / path.name.replace("layout", which).replace(".json", ".safetensors")
        with safe_open(file, framework="pt") as tensors:
            for key, slices in json.loads(path.read_text()).items():
                piece = tensors.get_tensor(key).flatten()
                for s in (Slice(**fields) for fields in slices):
                    part = piece[s.in_piece : s.in_piece + s.count]
                    flat[s.name][s.in_parameter : s.in_parameter + s.count] = part
                    filled[s.name] += s.count
    for name, tensor in flat.items():
        if filled[name] != tensor.numel():
            raise UserError(
                f"checkpoint {folder} holds {filled[name]} of the {tensor.numel()} elements of "
                f"{name}; a rank's {which} file is missing, so use another checkpoint"
            )
    shaped = {n: tensor.view(manifest.parameters[n]) for n, tensor in flat.items()}
    return shaped | load_file(folder / "buffers.safetensors")


def write_rank(
    folder: Path,
    rank: int,
    pieces: Sequence[Piece],
    average: Sequence[Tensor],
    random_state: dict[str, Tensor],
) -> None:
    """Write one rank's weights, their average and the random state of its process."""
    keys = [f"{i:06d}" for i in range(len(pieces))]
    layout = {k: [asdict(s) for s in p.slices] for k, p in zip(keys, pieces, strict=True)}
    raw = {k: p.tensor.detach().contiguous() for k, p in zip(keys, pieces, strict=True)}
    ema = {k: tensor.contiguous() for k, tensor in zip(keys, average, strict=True)}
    (folder / f"layout-{rank:05d}.json").write_text(json.dumps(layout))
    save_file(raw, folder / f"raw-{rank:05d}.safetensors")
    save_file(ema, folder / f"ema-{rank:05d}.safetensors")
    save_file(random_state, folder / f"rng-{rank:05d}.safetensors")


def read_rank(folder: Path, rank: int, average: Sequence[Tensor]) -> None:
    """Take up the average and the random state that `write_rank` wrote, in place."""
    saved = load_file(folder / f"ema-{rank:05d}.safetensors")
    for tensor, key in zip(average, sorted(saved), strict=True):
        tensor.copy_(saved[key])
    state = load_file(folder / f"rng-{rank:05d}.safetensors")
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def read_slices(folder: Path, which: Weights, pieces: Sequence[Piece]) -> None:
    """Fill each piece's tensor, in place, from however many ranks wrote the checkpoint.

    Padding is set to 0. Reads only what the pieces hold. Raises UserError where a part is missing.
    """
    written: dict[str, list[tuple[Path, str, Slice]]] = {}
    for path in sorted(folder.glob("layout-*.json")):
        file = folder / path.name.replace("layout", which).replace(".json", ".safetensors")
        for key, slices in json.loads(path.read_text()).items():
            for s in (Slice(**fields) for fields in slices):
                written.setdefault(s.name, []).append((file, key, s))
    with ExitStack() as stack:
        opened: dict[Path, Any] = {}
        for piece in pieces:
            flat = piece.tensor.detach().view(-1).zero_()
            for mine in piece.slices:
                filled = 0
                for file, key, theirs in written.get(mine.name, []):
                    if file not in opened:
                        opened[file] = stack.enter_context(safe_open(file, framework="pt"))
                    filled += _copy_overlap(flat, mine, opened[file], key, theirs)
                if filled != mine.count:
                    raise UserError(
                        f"checkpoint {folder} holds {filled} of {mine.count} elements that this "
                        f"rank needs of {mine.name} ({which}); use another checkpoint"
                    )


def _copy_overlap(flat: Tensor, mine: Slice, file: Any, key: str, theirs: Slice) -> int:
    """Copy into `flat` the elements of a parameter that two slices share; how many there are."""
    first = max(mine.in_parameter, theirs.in_parameter)
    last = min(mine.in_parameter + mine.count, theirs.in_parameter + theirs.count)
    if first >= last:
        return 0
    source = file.get_slice(key)
    if len(source.get_shape()) == 1:
        start = theirs.in_piece + first - theirs.in_parameter
        part = source[start : start + last - first]
    else:  # ZeRO 0 writes whole parameters in their own shape
        part = file.get_tensor(key).view(-1)[theirs.in_piece :][first - theirs.in_parameter :]
    place = mine.in_piece + first - mine.in_parameter
    flat[place : place + last - first].copy_(part.view(-1)[: last - first])
    return last - first


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def first_difference(saved: dict[str, list[int]], here: dict[str, tuple[int, ...]]) -> str | None:
    """The first tensor in which two architectures differ, told; None where they are the same."""
    for name in [*here, *saved]:
        if name not in saved:
            return f"{name} of shape {here[name]} is not in it"
        if name not in here:
            return f"{name} of shape {tuple(saved[name])} is in it, but not in this model"
        if tuple(saved[name]) != here[name]:
            return f"{name} has shape {tuple(saved[name])} in it and {here[name]} in this model"
    return None


def publish(partial: Path, folder: Path, manifest: Manifest) -> None:
    """Give a finished checkpoint its name and point `latest` at it."""
    replace_text(partial / "manifest.json", json.dumps(asdict(manifest), indent=1))
    if folder.exists():  # a damaged one, which was not resumed from
        remove(folder)
    partial.replace(folder)
    _sync_folder(folder.parent)
    replace_text(folder.parent.parent / "latest", f"checkpoints/{folder.name}\n")


def remove(folder: Path) -> None:
    """Delete a checkpoint such that a half-deleted one never bears a checkpoint's name."""
    doomed = folder.with_name(f".deleted-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def tidy(run_dir: Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for left in (run_dir / "checkpoints").glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file such that a reader sees the former text or this, whatever happens."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def files_of(folder: Path) -> list[Path]:
    """The files of a checkpoint but its manifest, in order."""
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path.name != "manifest.json")


def differences(saved: dict[str, Any], here: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings (with dots) that are not equal in two dumped configs."""
    for name in [*here, *(n for n in saved if n not in here)]:
        a, b = saved.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name
