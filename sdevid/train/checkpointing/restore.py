"""Carrying a run on from a checkpoint: which one, whether it fits, and whether it came back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdevid import checkpoint, clock, tensor_file
from sdevid.checkpoint import Manifest, Progress
from sdevid.config import Config, parse, record, settings_by_path
from sdevid.errors import UserError
from sdevid.settings.setting import Role
from sdevid.settings.yaml_file import read_settings
from sdevid.train import schedule
from sdevid.train.checkpointing import data_identity, elastic, probe
from sdevid.train.checkpointing.data_identity import DataIdentity
from sdevid.train.checkpointing.saver import total_sums
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.world import World


@dataclass(frozen=True)
class Expected:
    """What a checkpoint is checked against: this run's data and length, and whether to trust it."""

    data: DataIdentity | None = None  # None: not compared
    total_clips: int = 0  # 0: the schedule is not compared
    trusted: bool = False  # an older format may be read, and its files may run code


def resume(
    engine: Engine,
    ema: EMA,
    config: Config,
    at_most: int | None = None,
    expected: Expected = Expected(),
) -> Progress | None:
    """Resume from the newest whole checkpoint in `run_dir`; None where there is none at all.

    With `at_most`, from the newest one of that step or before it. May be called again in a live
    engine, to go back. Every rank takes part, and no save may be under way. Raises UserError where
    all are damaged, or the one found does not fit the model or the data, is of an older format and
    not trusted, or does not load as it was saved.
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
            world.say(f"{damaged}; trying the one before it", "warning")
            continue
        return _take_up(engine, ema, folder, expected)
    if damaged:
        raise UserError(
            f"no checkpoint of {config.run_dir} is whole: {damaged}; give another run_dir, or "
            "remove the checkpoints folder to start again"
        )
    return None


def _take_up(engine: Engine, ema: EMA, folder: Path, expected: Expected) -> Progress:
    """Load a whole checkpoint after checking that it fits, and verify what was loaded."""
    manifest, config = checkpoint.read_manifest(folder), engine.config
    _check_trust(folder, manifest, expected)
    changed = check_fits(folder, manifest, engine)
    _check_data(folder, manifest, config, expected, engine.world)
    _load(engine, ema, folder, manifest, trusted=expected.trusted)
    _verify(engine, folder, manifest, changed)
    for jump in _schedule_jumps(folder, manifest, config, expected):
        engine.world.say(jump, "warning")
    return Progress(manifest.clips, manifest.step, manifest.faults, manifest.cursors)


def _load(engine: Engine, ema: EMA, folder: Path, manifest: Manifest, *, trusted: bool) -> None:
    world, stage = engine.world, engine.config.zero_stage
    there = (manifest.world_size, manifest.zero_stage)
    if there == (world.size, stage) and manifest.groups in ([], engine.groups()):
        engine.load(folder, trusted=trusted)
        checkpoint.read_rank(folder, world.rank, ema.average)
    else:
        world.say(
            f"{folder.name} was written by {there[0]} ranks at ZeRO {there[1]}; this run has "
            f"{world.size} at ZeRO {stage}: converting"
        )
        elastic.load(engine, ema, folder, manifest, trusted=trusted)
    engine.load_buffers(tensor_file.load(folder / "buffers.safetensors"))


def _verify(engine: Engine, folder: Path, manifest: Manifest, changed: list[str]) -> None:
    """Raise UserError where the loaded state differs, in any bit, from the saved one."""
    sums = total_sums(engine)
    wrong = [name for name, total in manifest.sums.items() if sums.get(name) != total]
    if wrong:
        raise UserError(
            f"checkpoint {folder} was loaded, but {', '.join(wrong)} do not have the checksum "
            "that they were saved with; start from the one before it by removing this one"
        )
    if probe.comparable(changed):
        probe.check_probe(engine, manifest.probe, folder)


def _faults(folder: Path, world: World) -> list[str]:
    """List what is wrong with a checkpoint; each rank checks its share of the files."""
    try:
        manifest = checkpoint.read_manifest(folder)
        mine = checkpoint.faults(folder, manifest, slice(world.rank, None, world.size))
    except UserError as error:
        mine = [str(error)]
    return [fault for part in world.gather(mine) for fault in part]


def _check_trust(folder: Path, manifest: Manifest, expected: Expected) -> None:
    if manifest.format < checkpoint.FORMAT and not expected.trusted:
        raise UserError(
            f"checkpoint {folder} has format {manifest.format}, whose manifest has no hash of its "
            "own and whose files may run code when they are read; if you made it yourself, "
            "--trust-checkpoint carries on from it"
        )


def _check_data(
    folder: Path, manifest: Manifest, config: Config, expected: Expected, world: World
) -> None:
    """Raise UserError where the data differ from the checkpoint's and `data_changed` is not set."""
    if expected.data is None:
        return
    difference = data_identity.difference(manifest.data, expected.data)
    if difference is None:
        return
    text = f"the data are not those of {folder.name} ({difference})"
    if not config.data_changed:
        jumps = "".join(f"; {jump}" for jump in _schedule_jumps(folder, manifest, config, expected))
        raise UserError(
            f"{text}{jumps}; give back the former data, or data_changed=true to carry on with "
            "these, or another run_dir to start a new run"
        )
    epoch, into = divmod(manifest.clips, expected.data.clips)
    world.say(
        f"{text}: data_changed=true, so clip {manifest.clips:,} of the run is now clip {into:,} of "
        f"epoch {epoch} of these data; what was seen of the former data does not count",
        "warning",
    )


def _schedule_jumps(
    folder: Path, manifest: Manifest, config: Config, expected: Expected
) -> Iterator[str]:
    """Yield where the schedules jump, since the run's length or their settings changed."""
    if not (manifest.total_clips and expected.total_clips):
        return
    try:
        former = parse(_saved_settings(folder))
    except UserError:  # of a version with other settings: they are named as changed
        return
    for name, curve in (
        ("learning rate", schedule.learning_rate),
        ("KL weight", schedule.kl_weight),
    ):
        before = curve(manifest.clips, manifest.total_clips, former)
        now = curve(manifest.clips, expected.total_clips, config)
        if abs(now - before) > 1e-3 * max(abs(now), abs(before)):
            yield (
                f"the {name} at clip {manifest.clips:,} jumps from {before:.6g} to {now:.6g}: the "
                f"schedule was of {manifest.total_clips:,} clips and is of "
                f"{expected.total_clips:,} now"
            )


def check_fits(folder: Path, manifest: Manifest, engine: Engine) -> list[str]:
    """Raise UserError where a checkpoint is of another architecture.

    Other changed settings are reported in a line, and returned.
    """
    config = engine.config
    saved, here = _saved_settings(folder), yaml.safe_load(record(config))
    changed = {
        name: f"{name} ({_setting(saved, name)} there, {_setting(here, name)} now)"
        for name in checkpoint.differences(saved, here)
        if name not in ("run_dir", "data_changed")
    }
    tensor = checkpoint.first_difference(manifest.parameters, engine.shapes)
    structural = [text for name, text in changed.items() if _role(name) == "architecture"]
    if tensor or structural:
        reasons = "; ".join(filter(None, [tensor, ", ".join(structural)]))
        raise UserError(
            f"checkpoint {folder} is of another architecture: {reasons}. Set it back, or give "
            "another run_dir to start a new run"
        )
    if changed:
        engine.world.say(f"settings changed since {folder.name}: {', '.join(changed.values())}")
    return list(changed)


def _saved_settings(folder: Path) -> dict[str, Any]:
    """Read the checkpoint's config; a setting that it lacks gets its default."""
    saved = clock.of_saved(read_settings(folder / "config.yaml"))
    for path, setting in settings_by_path().items():
        *sections, name = path.split(".")
        place = saved
        for section in sections:
            place = place.setdefault(section, {})
        default = setting.default
        place.setdefault(name, list(default) if isinstance(default, tuple) else default)
    settings: dict[str, Any] = saved
    return settings


def _role(name: str) -> Role:
    """Look up the role of a setting; one that this version does not know counts as objective."""
    setting = settings_by_path().get(name)
    return setting.role if setting else "objective"


def _setting(settings: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        settings = settings.get(part, "unset") if isinstance(settings, dict) else "unset"
    return settings
