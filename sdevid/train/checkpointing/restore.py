"""Carrying a run on from a checkpoint: which one, whether it fits, and whether it came back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from sdevid import checkpoint, clock
from sdevid.checkpoint import Manifest, Progress
from sdevid.config import Config, settings_by_path
from sdevid.errors import UserError
from sdevid.settings.setting import Role
from sdevid.train.checkpointing import elastic, probe
from sdevid.train.checkpointing.saver import total_sums
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.world import World


def resume(engine: Engine, ema: EMA, config: Config, at_most: int | None = None) -> Progress | None:
    """Carry on from the newest whole checkpoint in `run_dir`; None where there is none at all.

    With `at_most`, from the newest one of that step or before it. May be called again in a live
    engine, to go back. Every rank takes part, and no save may be under way. Raises UserError where
    all are damaged, or the one found does not fit the model or does not load as it was saved.
    """
    world, damaged = engine.world, ""
    if world.main:
        checkpoint.tidy(config.run_dir)
    for step in world.gather(checkpoint.steps(config.run_dir))[0]:
        if at_most is not None and step > at_most:
            continue
        folder = checkpoint.folder_of(config.run_dir, step)
        wrong = _faults(folder, world)
        if wrong:
            damaged = f"{folder} is damaged: {wrong[0]}"
            world.say(f"{damaged}; trying the one before it")
            continue
        manifest = checkpoint.read_manifest(folder)
        changed = check_fits(folder, manifest, engine)
        _load(engine, ema, folder, manifest)
        _verify(engine, folder, manifest, changed)
        return Progress(manifest.clips, manifest.step, manifest.faults)
    if damaged:
        raise UserError(
            f"no checkpoint of {config.run_dir} is whole: {damaged}; give another run_dir, or "
            "remove the checkpoints folder to start again"
        )
    return None


def _load(engine: Engine, ema: EMA, folder: Path, manifest: Manifest) -> None:
    world, stage = engine.world, engine.config.zero_stage
    there = (manifest.world_size, manifest.zero_stage)
    if there == (world.size, stage) and manifest.groups in ([], engine.groups()):
        engine.load(folder)
        checkpoint.read_rank(folder, world.rank, ema.average)
    else:
        world.say(
            f"{folder.name} was written by {there[0]} ranks at ZeRO {there[1]}; this run has "
            f"{world.size} at ZeRO {stage}: converting"
        )
        elastic.load(engine, ema, folder, manifest)
    engine.load_buffers(load_file(folder / "buffers.safetensors"))


def _verify(engine: Engine, folder: Path, manifest: Manifest, changed: list[str]) -> None:
    """Raise UserError where what was loaded is not, to the bit, what was saved."""
    found = total_sums(engine)
    wrong = [n for n, total in manifest.sums.items() if found.get(n) != total]
    if wrong:
        raise UserError(
            f"checkpoint {folder} was loaded, but {', '.join(wrong)} do not have the checksum "
            "that they were saved with; start from the one before it by removing this one"
        )
    if probe.comparable(changed):
        probe.check(engine, manifest.probe, folder)


def _faults(folder: Path, world: World) -> list[str]:
    """What is wrong with a checkpoint, each rank having looked at its share of the files."""
    try:
        manifest = checkpoint.read_manifest(folder)
        mine = checkpoint.faults(folder, manifest, slice(world.rank, None, world.size))
    except UserError as error:
        mine = [str(error)]
    return [fault for part in world.gather(mine) for fault in part]


def check_fits(folder: Path, manifest: Manifest, engine: Engine) -> list[str]:
    """Raise UserError where a checkpoint is of another architecture.

    Other settings that changed are said in a line, and returned.
    """
    config = engine.config
    saved = clock.of_saved(yaml.safe_load((folder / "config.yaml").read_text()))
    here = config.model_dump(mode="json")
    changed = {
        name: f"{name} ({_setting(saved, name)} there, {_setting(here, name)} now)"
        for name in checkpoint.differences(saved, here)
        if name != "run_dir"
    }
    tensor = checkpoint.first_difference(manifest.parameters, engine.shapes)
    structural = [text for name, text in changed.items() if _role(name) == "architecture"]
    if tensor or structural:
        found = "; ".join(filter(None, [tensor, ", ".join(structural)]))
        raise UserError(
            f"checkpoint {folder} is of another architecture: {found}. Set it back, or give "
            "another run_dir to start a new run"
        )
    if changed:
        engine.world.say(f"settings changed since {folder.name}: {', '.join(changed.values())}")
    return list(changed)


def _role(name: str) -> Role:
    """The role of a setting; one that this version does not know has shaped the objective."""
    known = settings_by_path().get(name)
    return known.role if known else "objective"


def _setting(settings: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        settings = settings.get(part, "unset") if isinstance(settings, dict) else "unset"
    return settings
