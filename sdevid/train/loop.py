"""The training loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch

from sdevid import checkpoint, objectives
from sdevid.atomic_file import replace_text
from sdevid.checkpoint import Progress
from sdevid.config import Config, record
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.train import (
    compiled,
    device_settings,
    frozen_pictures,
    schedule,
    text_conditioning,
    training_data,
    warm_start,
)
from sdevid.train.checkpointing import data_identity, restore
from sdevid.train.checkpointing.restore import Expected
from sdevid.train.checkpointing.saver import Saver
from sdevid.train.control_files import ControlFiles
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.health import stragglers
from sdevid.train.health.quarantine import Quarantine
from sdevid.train.health.recovery import Recovery
from sdevid.train.record import profile, starts
from sdevid.train.record.metrics import Metrics
from sdevid.train.record.samples import SampleMaker
from sdevid.train.summary.startup_summary import announce
from sdevid.train.training_data import TrainingData
from sdevid.train.world import World

Ending = Literal["done", "stopped", "preempted"]


def train(
    config: Config,
    data: TrainingData,
    world: World,
    progress: Progress,
    *,
    trust_checkpoint: bool = False,
) -> Ending:
    """Train on the clips of `data`, carrying on from the checkpoint in `run_dir` if any.

    `progress` is kept up to date, so that the caller knows how far the run came. Raises
    NonFiniteError where training is lost, and UserError for what a user can put right.
    """
    config, drawn = frozen_pictures.open_pictures(config, data, world)
    read, text_summary = text_conditioning.open_text(config, data, world)
    objective = _build(config, world)
    if config.start_from is not None and not checkpoint.steps(config.run_dir):
        text_summary += "\n" + warm_start.start_from(objective.model, config.start_from)
    if config.compile:
        compiled.compile_parts(objective.model)
    engine = Engine(objective, config, world, read)
    ema = EMA([shard.tensor for shard in engine.parameter_shards()], config.ema_decay)
    total, identity = training_data.total_clips(data, config), data_identity.identify(data)
    expected = Expected(identity, total, trust_checkpoint)
    resumed = restore.resume(engine, ema, config, expected=expected) or Progress()
    progress.clips, progress.step = resumed.clips, resumed.step
    progress.faults, progress.cursors = resumed.faults, resumed.cursors
    if world.main:
        replace_text(config.run_dir / "config.yaml", record(config))
    announce(engine, progress, total, (text_summary, drawn))
    if progress.clips >= total:
        return "done"
    starts.note(config, world, progress)
    saving = Saver(engine, ema, data=identity, total_clips=total, whole=progress.step > 0)
    with Metrics(config, world, progress, total) as metrics, saving as saver, _frozen_heap():
        return _steps(saver, data, metrics, progress)


def _build(config: Config, world: World) -> ClipObjective:
    torch.manual_seed(config.seed)
    objective = objectives.build(config)
    if device_settings.is_channels_last(config, world.device):
        device_settings.set_channels_last(objective)
    return objective


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Keep what is there before the first step out of Python's garbage collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _steps(saver: Saver, data: TrainingData, metrics: Metrics, progress: Progress) -> Ending:
    engine, ema, config, world = saver.engine, saver.ema, saver.engine.config, saver.world
    total, size = training_data.total_clips(data, config), config.batch_size
    control, recovery = ControlFiles(config.run_dir, world), Recovery(saver, progress)
    reader = training_data.open_reader(data, config, world, progress)
    quarantine, samples = Quarantine(config, world, len(data)), SampleMaker(config, data, world)
    batches = profile.recording(reader.steps(progress.clips), config, world)
    for batch in metrics.waiting(quarantine.watching(batches)):
        kl_weight = schedule.kl_weight(progress.clips, total, config)
        rate = schedule.learning_rate(progress.clips, total, config)
        cast(ClipObjective, engine.objective).progress.fill_(progress.clips / total)
        terms = engine.step(batch, kl_weight, rate, recovery.approves)
        progress.advance(size)
        if recovery.good:
            ema.update(progress.step)
        metrics.saved = max([metrics.saved, *saver.saved])
        metrics.add(terms, skipped=not recovery.good)
        recovery.apply()
        asked = control.asked()
        ends = progress.clips >= total or asked.stop is not None
        saves = recovery.may_save(progress.passed(config.save_every, size)) or asked.save or ends
        if saves or progress.passed(config.log_every, size):
            own = engine.own_time.take() + metrics.waited
            slow = stragglers.slowest(world, own, metrics.elapsed, config.watchdog.slow_ratio)
            rates = {"learning_rate": rate, "kl_weight": kl_weight}
            figures = metrics.flush(progress, rates | slow | quarantine.flush())
            saver.score(figures)  # a wrong name is told at the first line, not at the first save
        with world.heartbeat.phase("checkpoint"):
            if saves:
                saver.save(training_data.with_cursors(progress, reader, world), figures)
            if asked.save or ends:
                saver.wait(strict=ends)
                metrics.saved = max([metrics.saved, *saver.saved])
                control.answered(asked)
            if asked.stop is None:
                samples.follow(saver)
        if ends:
            return asked.stop or "done"
        world.heartbeat.beat(progress.step)
    raise AssertionError("the stream of batches has no end")
