"""Carrying on with another number of ranks, another ZeRO stage or other optimizer groups.

Rank 0 converts the checkpoint to DeepSpeed's universal layout, a folder a parameter, in a
temporary folder beside it: DeepSpeed's own tool does it for ZeRO 1 to 3, and ZeRO 0, which it does
not know, is taken apart here. Then what differs between the stages' loaders is evened out, all
ranks load it, and what the layout lacks is repaired: buffers and the groups' settings by the
caller, the average from our own slices, the random state anew. The cursor needs nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdevid import checkpoint
from sdevid.checkpoint import Manifest, ParameterShard
from sdevid.errors import UserError
from sdevid.train.checkpointing import data_only
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine

_TOOL = "sdevid.train.checkpointing.convert"  # DeepSpeed's, reading data only
_PARTS = ("fp32", "exp_avg", "exp_avg_sq")  # files of a parameter, each {"param": tensor}
_STEP_SEEDS = 1_000_003  # apart further than any number of ranks, and prime


def load(
    engine: Engine, ema: EMA, folder: Path, manifest: Manifest, *, trusted: bool = False
) -> None:
    """Load a checkpoint of another world size or ZeRO stage. Every rank takes part.

    Raises UserError on every rank where the conversion fails, having removed what it wrote.
    """
    world = engine.world
    aside = folder.with_name(f".universal-{folder.name}")
    universal = aside / folder.name
    try:
        failure = _convert(engine, folder, universal, manifest, trusted) if world.main else None
        message = next(filter(None, world.gather(failure)), None)
        if message:
            raise UserError(message)
        if engine.config.zero_stage == 0:
            engine.load_whole(lambda name: _parameter(universal, name))
        else:
            engine.load(universal, universal=True, trusted=trusted)
        world.barrier()
    finally:
        if world.main:
            shutil.rmtree(aside, ignore_errors=True)
    average = [
        ParameterShard(a, p.slices)
        for a, p in zip(ema.average, engine.parameter_shards(), strict=True)
    ]
    checkpoint.read_slices(folder, "ema", average)
    torch.manual_seed(engine.config.seed + _STEP_SEEDS * manifest.step + world.rank)


def _convert(
    engine: Engine, folder: Path, universal: Path, manifest: Manifest, trusted: bool
) -> str | None:
    """Write the universal layout for this engine's stage; return what went wrong, if anything."""
    shutil.rmtree(universal.parent, ignore_errors=True)
    need = sum(path.stat().st_size for path in folder.glob("*.pt"))
    try:
        universal.mkdir(parents=True)
        free = shutil.disk_usage(universal).free
        if free < 2 * need:  # the tool cuts into fragments, then merges them
            raise OSError(f"{2 * need / 2**20:,.0f} MiB are needed, {free / 2**20:,.0f} are free")
        if manifest.zero_stage == 0:
            step = _take_apart(folder, universal, manifest, trusted)
        else:
            _run_tool(folder, universal, engine.config.checkpoint.patience, trusted)
            step = _step(universal, manifest)
        _even_out(engine, universal, manifest, step)
    except (OSError, RuntimeError, subprocess.SubprocessError, KeyError, UserError) as error:
        return (
            f"checkpoint {folder} of {manifest.world_size} ranks at ZeRO {manifest.zero_stage} "
            f"could not be converted in {universal.parent}: {error}. The checkpoint is as it was: "
            "make room, or start as many ranks at that stage as wrote it"
        )
    return None


def _run_tool(folder: Path, universal: Path, patience: int, trusted: bool) -> None:
    workers = str(min(4, len(os.sched_getaffinity(0))))
    launched = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {k: v for k, v in os.environ.items() if k not in launched}
    done = subprocess.run(
        [
            *(sys.executable, "-m", _TOOL, "--inject_missing_state"),
            *("--input_folder", str(folder), "--output_folder", str(universal)),
            *("--num_extract_workers", workers, "--num_merge_workers", workers),
            *(("--trust",) if trusted else ()),
        ],
        env=environment | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{_TOOL} ended with {done.returncode}: {last}")


def _take_apart(folder: Path, universal: Path, manifest: Manifest, trusted: bool) -> Tensor:
    """Write each parameter's parts from ZeRO 0's one file of whole tensors; return Adam's step."""
    state = data_only.read(folder / "mp_rank_00_model_states.pt", trusted=trusted)
    held = state["optimizer"]["state"]
    order = sorted(enumerate(manifest.groups), key=lambda pair: pair[1])  # by group, as torch does
    names = list(manifest.parameters)
    step = torch.tensor(0.0)
    for key, (place, _) in enumerate(order):
        name, shard = names[place], held[key]
        for part in _PARTS:
            tensor = state["module"][name] if part == "fp32" else shard[part]
            _write(universal / "zero" / name / f"{part}.pt", {"param": tensor.float().clone()})
        step = shard["step"]
    del state["module"], state["optimizer"]
    torch.save(state | {"optimizer": None, "module": {}}, universal / "mp_rank_00_model_states.pt")
    return step


def _step(universal: Path, manifest: Manifest) -> Tensor:
    """Read Adam's step, which the stages keep in different places."""
    if manifest.zero_stage < 3:
        first = next(iter(manifest.parameters))
        return torch.as_tensor(data_only.read(universal / "zero" / first / "step.pt"))
    state = data_only.read(universal / "zero" / "optimizer_state.pt")
    return torch.as_tensor(state["optimizer_state_dict"]["state"][0]["step"])


def _even_out(engine: Engine, universal: Path, manifest: Manifest, step: Tensor) -> None:
    """Write what the loader of this engine's stage expects, whatever stage it came from."""
    stage, zero = engine.config.zero_stage, universal / "zero"
    for name, shape in manifest.parameters.items():
        _write(zero / name / "step.pt", step)
        for part in _PARTS if manifest.zero_stage == 3 else ():  # flat, and not in a dict
            path = zero / name / f"{part}.pt"
            content = data_only.read(path)
            tensor = content["param"] if isinstance(content, dict) else content
            _write(path, {"param": tensor.view(shape)})
    groups: list[dict[str, Any]] = [
        {"params": []} for _ in range(1 + max(engine.groups()))
    ]  # settings: this run's own
    inner = {"state": {0: {"step": step}}, "param_groups": groups}
    state = {"ds_version": version("deepspeed"), "param_groups": groups}
    if manifest.zero_stage:
        former = data_only.read(zero / "optimizer_state.pt")
        state |= {k: former[k] for k in ("loss_scaler", "dynamic_loss_scale", "overflow")}
    _write(zero / "optimizer_state.pt", state | {"optimizer_state_dict": inner})
    names = {True: "zero_pp_rank_0_mp_rank_00_model_states.pt", False: "mp_rank_00_model_states.pt"}
    there, here = universal / names[manifest.zero_stage == 3], universal / names[stage == 3]
    if there != here:
        there.replace(here)


def _parameter(universal: Path, name: str) -> dict[str, Tensor]:
    folder = universal / "zero" / name
    parts = {part: data_only.read(folder / f"{part}.pt")["param"] for part in _PARTS}
    return parts | {"step": data_only.read(folder / "step.pt")}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
