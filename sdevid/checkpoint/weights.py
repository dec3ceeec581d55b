"""Weights in a checkpoint: each rank writes its shards, and readers put them together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdevid import tensor_file
from sdevid.checkpoint.manifest import Manifest, read_manifest
from sdevid.errors import UserError

Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Slice:
    """`count` elements of a flattened parameter: where they start in it, and in their shard."""

    name: str
    in_parameter: NonNegativeInt
    in_shard: NonNegativeInt
    count: NonNegativeInt


@dataclass(frozen=True)
class ParameterShard:
    """A float32 tensor of some rank, made of slices of parameters and perhaps padding."""

    tensor: Tensor
    slices: list[Slice]


_LAYOUT = TypeAdapter(dict[str, list[Slice]])
_MOST_LAYOUT = 256 * 2**20  # bytes of a layout
_ANOTHER = "use another checkpoint"


def read_weights(folder: Path, which: Weights) -> dict[str, Tensor]:
    """Read every parameter, put together on the CPU from all ranks, and the buffers.

    Reads neither pickles nor DeepSpeed's files. Raises UserError where a part is missing.
    """
    manifest = read_manifest(folder)
    layouts = sorted(folder.glob("layout-*.json"))
    _check_room(folder, manifest, [_beside(path, which) for path in layouts])
    flat = {n: torch.empty(math.prod(shape)) for n, shape in manifest.parameters.items()}
    filled = dict.fromkeys(flat, 0)
    for path in layouts:
        with _opened(_beside(path, which)) as tensors:
            for key, slices in _layout(path).items():
                shard = tensors.get_tensor(key).flatten()
                for s in slices:
                    part = shard[s.in_shard : s.in_shard + s.count]
                    if s.name not in flat or len(part) != s.count:
                        raise UserError(f"{path} is damaged: it misplaces {s.name}; {_ANOTHER}")
                    room = flat[s.name][s.in_parameter : s.in_parameter + s.count]
                    if len(room) != s.count:
                        raise UserError(f"{path} is damaged: it overfills {s.name}; {_ANOTHER}")
                    room.copy_(part)
                    filled[s.name] += s.count
    for name, tensor in flat.items():
        if filled[name] != tensor.numel():
            raise UserError(
                f"checkpoint {folder} holds {filled[name]} of the {tensor.numel()} elements of "
                f"{name}; a rank's {which} file is missing, so use another checkpoint"
            )
    shaped = {n: tensor.view(manifest.parameters[n]) for n, tensor in flat.items()}
    return shaped | tensor_file.load(folder / "buffers.safetensors")


def _check_room(folder: Path, manifest: Manifest, files: Sequence[Path]) -> None:
    """Raise UserError where the manifest names more elements than the files can hold."""
    named = sum(math.prod(shape) for shape in manifest.parameters.values())
    held = sum(file.stat().st_size for file in files if file.is_file())
    if (
        any(side < 0 for shape in manifest.parameters.values() for side in shape)
        or 4 * named > held
    ):
        raise UserError(
            f"checkpoint {folder} names {named:,} elements, but its files have {held:,} bytes; "
            f"{_ANOTHER}"
        )


def _beside(layout: Path, which: Weights) -> Path:
    """Name the file of tensors that a rank's layout describes."""
    name = layout.name.replace("layout", which).replace(".json", ".safetensors")
    return layout.with_name(name)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a rank's tensors. Raises UserError where the file, or a tensor of it, does not read."""
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} does not read: {error}; {_ANOTHER}") from error


def _layout(path: Path) -> dict[str, list[Slice]]:
    """Read the slices of each tensor of a rank's file. Raises UserError where it is damaged."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_LAYOUT + 1)
        if len(content) > _MOST_LAYOUT:
            raise ValueError(f"it has more than {_MOST_LAYOUT:,} bytes")
        return _LAYOUT.validate_json(content.replace(b'"in_piece"', b'"in_shard"'))  # of format 1
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged: {reason}; {_ANOTHER}") from error


def write_rank(
    folder: Path,
    rank: int,
    shards: Sequence[ParameterShard],
    average: Sequence[Tensor],
    random_state: dict[str, Tensor],
) -> None:
    """Write one rank's weights, their average and the random state of its process."""
    keys = [f"{i:06d}" for i in range(len(shards))]
    layout = {k: [asdict(s) for s in p.slices] for k, p in zip(keys, shards, strict=True)}
    raw = {k: p.tensor.detach().contiguous() for k, p in zip(keys, shards, strict=True)}
    ema = {k: tensor.contiguous() for k, tensor in zip(keys, average, strict=True)}
    (folder / f"layout-{rank:05d}.json").write_text(json.dumps(layout), encoding="utf-8")
    tensor_file.save(raw, folder / f"raw-{rank:05d}.safetensors")
    tensor_file.save(ema, folder / f"ema-{rank:05d}.safetensors")
    tensor_file.save(random_state, folder / f"rng-{rank:05d}.safetensors")


def read_rank(folder: Path, rank: int, average: Sequence[Tensor]) -> None:
    """Read back, in place, the average and the random state that `write_rank` wrote."""
    saved = tensor_file.load(folder / f"ema-{rank:05d}.safetensors")
    for tensor, key in zip(average, sorted(saved), strict=True):
        tensor.copy_(saved[key])
    state = tensor_file.load(folder / f"rng-{rank:05d}.safetensors")
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def read_slices(folder: Path, which: Weights, shards: Sequence[ParameterShard]) -> None:
    """Fill each shard's tensor, in place, from however many ranks wrote the checkpoint.

    Padding is set to 0. Reads only what the shards hold. Raises UserError where a part is missing.
    """
    written: dict[str, list[tuple[Path, str, Slice]]] = {}
    for path in sorted(folder.glob("layout-*.json")):
        for key, slices in _layout(path).items():
            for s in slices:
                written.setdefault(s.name, []).append((_beside(path, which), key, s))
    with ExitStack() as stack:
        opened: dict[Path, Any] = {}
        for shard in shards:
            flat = shard.tensor.detach().view(-1).zero_()
            for mine in shard.slices:
                filled = 0
                for file, key, theirs in written.get(mine.name, []):
                    if file not in opened:
                        opened[file] = stack.enter_context(_opened(file))
                    filled += _copy_overlap(flat, mine, opened[file], key, theirs)
                if filled != mine.count:
                    raise UserError(
                        f"checkpoint {folder} holds {filled} of {mine.count} elements that this "
                        f"rank needs of {mine.name} ({which}); use another checkpoint"
                    )


def _copy_overlap(flat: Tensor, mine: Slice, file: Any, key: str, theirs: Slice) -> int:
    """Copy into `flat` the elements of a parameter that two slices share; return their count."""
    first = max(mine.in_parameter, theirs.in_parameter)
    last = min(mine.in_parameter + mine.count, theirs.in_parameter + theirs.count)
    if first >= last:
        return 0
    source = file.get_slice(key)
    if len(source.get_shape()) == 1:
        start = theirs.in_shard + first - theirs.in_parameter
        part = source[start : start + last - first]
    else:  # ZeRO 0 writes whole parameters in their own shape
        part = file.get_tensor(key).view(-1)[theirs.in_shard :][first - theirs.in_parameter :]
    place = mine.in_shard + first - mine.in_parameter
    flat[place : place + last - first].copy_(part.view(-1)[: last - first])
    return last - first


def random_state() -> dict[str, Tensor]:
    """Read the state of torch's generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
