"""Saving and resuming a run: every rank's part of a checkpoint, agreed on between them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from sdevid import checkpoint
from sdevid.checkpoint import Manifest, Progress
from sdevid.config import Config, dump
from sdevid.errors import UserError
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.world import World

Result = TypeVar("Result")
Files = dict[str, tuple[int, str]]  # size in bytes and sha256, by name

ARCHITECTURE = frozenset(
    {
        "model_type",
        "sde_type",
        "frame_size",
        "channels",
        "sde.latent",
        "sde.latent_size",
        "sde.content_size",
        "sde.hidden",
        "sde.depth",
        "sde.noise",
        "sde.start_components",
        "sde.posterior_width",
        "sde.posterior_drift",
        "encoder.channels",
        "encoder.map_size",
        "encoder.features",
        "encoder.layers",
        "encoder.heads",
        "consistency.warp",
    }
)


class SaveError(UserError):
    """A checkpoint could not be written; the former ones are as they were."""


def save(engine: Engine, ema: EMA, progress: Progress, config: Config) -> Path:
    """Write a checkpoint of this step and publish it. Every rank takes part.

    Raises SaveError on every rank where any of them failed to write, having removed what was
    written; the former checkpoint stays.
    """
    world, folder = engine.world, checkpoint.folder_of(config.run_dir, progress.step)
    partial = folder.with_name(f".partial-{folder.name}")
    keep = config.checkpoint.keep
    try:
        _on_all(world, lambda: _start(partial) if world.main else None)
        _on_all(world, lambda: _write(engine, ema, config, partial))
        files = _on_all(world, lambda: _hashes(partial, world))
        manifest = _manifest(engine, progress, files)
        _on_all(
            world,
            lambda: checkpoint.publish(partial, folder, manifest, keep) if world.main else None,
        )
    except OSError as error:
        if world.main:
            shutil.rmtree(partial, ignore_errors=True)
        raise SaveError(_not_saved(config.run_dir, progress.step, error)) from error
    return folder


def _write(engine: Engine, ema: EMA, config: Config, partial: Path) -> None:
    failure = engine.save(partial)
    if failure:
        raise OSError(failure)
    if engine.world.main:
        (partial / "config.yaml").write_text(dump(config))
        save_file(_contiguous(engine.buffers()), partial / "buffers.safetensors")
    checkpoint.write_rank(partial, engine.world.rank, engine.pieces(), ema.average)


def _hashes(partial: Path, world: World) -> Files:
    """This rank's share of the sizes and hashes; those files are on the disk after it."""
    mine = checkpoint.files_of(partial)[world.rank :: world.size]
    return {
        str(path.relative_to(partial)): (path.stat().st_size, checkpoint.digest(path, sync=True))
        for path in mine
    }


def _start(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)


def _on_all(world: World, work: Callable[[], Result]) -> list[Result]:
    """Every rank's result of `work`; OSError on every rank where it failed on any."""
    result, failure = None, None
    try:
        result = work()
    except (OSError, RuntimeError, SafetensorError) as error:
        failure = str(error)
    outcomes: list[tuple[Any, str | None]] = world.gather((result, failure))
    failures = [f"rank {rank}: {text}" for rank, (_, text) in enumerate(outcomes) if text]
    if failures:
        raise OSError("; ".join(failures))
    return [outcome for outcome, _ in outcomes]


def _contiguous(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _manifest(engine: Engine, progress: Progress, files: list[Files]) -> Manifest:
    return Manifest(
        format=checkpoint.FORMAT,
        clips=progress.clips,
        step=progress.step,
        world_size=engine.world.size,
        zero_stage=engine.config.zero_stage,
        parameters={name: list(shape) for name, shape in engine.shapes.items()},
        files={name: entry for part in files for name, entry in part.items()},
        faults=progress.faults,
    )


def _not_saved(run_dir: Path, step: int, error: OSError) -> str:
    kept = checkpoint.steps(run_dir)
    left = f"the checkpoint of step {kept[0]} is as it was" if kept else "there was none before it"
    free = shutil.disk_usage(run_dir).free / 2**20
    return (
        f"the checkpoint of step {step} could not be written to {run_dir}: {error}. "
        f"{free:,.0f} MiB are free there; {left}. Make room and give the same command again"
    )


def resume(engine: Engine, ema: EMA, config: Config, at_most: int | None = None) -> Progress | None:
    """Carry on from the newest whole checkpoint in `run_dir`; None where there is none at all.

    With `at_most`, from the newest one of that step or before it. May be called again in a live
    engine, to go back. Every rank takes part, and no save may be under way. Raises UserError where
    all are damaged, or the one found does not fit the model or the world.
    """
    world, damaged = engine.world, ""
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
        check_fits(folder, manifest, engine)
        engine.load(folder)
        checkpoint.read_rank(folder, world.rank, ema.average)
        return Progress(manifest.clips, manifest.step, manifest.faults)
    if damaged:
        raise UserError(
            f"no checkpoint of {config.run_dir} is whole: {damaged}; give another run_dir, or "
            "remove the checkpoints folder to start again"
        )
    return None


def _faults(folder: Path, world: World) -> list[str]:
    """What is wrong with a checkpoint, each rank having looked at its share of the files."""
    try:
        manifest = checkpoint.read_manifest(folder)
        mine = checkpoint.faults(folder, manifest, slice(world.rank, None, world.size))
    except UserError as error:
        mine = [str(error)]
    return [fault for part in world.gather(mine) for fault in part]


def check_fits(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """Raise UserError where a checkpoint is of another architecture, world size or ZeRO stage.

    Settings that changed beside those are said in a line.
    """
    config, size = engine.config, engine.world.size
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    here = config.model_dump(mode="json")
    changed = {
        name: f"{name} ({_setting(saved, name)} there, {_setting(here, name)} now)"
        for name in checkpoint.differences(saved, here)
        if name != "run_dir"
    }
    tensor = checkpoint.first_difference(manifest.parameters, engine.shapes)
    structural = [text for name, text in changed.items() if name in ARCHITECTURE]
    if tensor or structural:
        found = "; ".join(filter(None, [tensor, ", ".join(structural)]))
        raise UserError(
            f"checkpoint {folder} is of another architecture: {found}. Set it back, or give "
            "another run_dir to start a new run"
        )
    stages = (manifest.zero_stage, config.zero_stage)
    if stages != (0, 0) and (manifest.world_size, stages[0]) != (size, stages[1]):
        raise UserError(
            f"checkpoint {folder} was written by {manifest.world_size} processes at zero_stage "
            f"{stages[0]}, and this run has {size} at zero_stage {stages[1]}; start it as it was"
        )
    if changed:
        engine.world.say(f"settings changed since {folder.name}: {', '.join(changed.values())}")


def _setting(settings: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        settings = settings.get(part, "unset") if isinstance(settings, dict) else "unset"
    return settings
