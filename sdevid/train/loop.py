"""The training loop."""

from __future__ import annotations

from typing import Literal

import torch

from sdevid import objectives
from sdevid.checkpoint import Progress, replace_text
from sdevid.config import Config, dump
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.train import compiled, schedule, snapshot, stragglers, wording
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.metrics import Metrics
from sdevid.train.opening import announce
from sdevid.train.quarantine import Quarantine
from sdevid.train.remedy import Remedy
from sdevid.train.saving import Saver
from sdevid.train.switches import Switches
from sdevid.train.world import World

Ending = Literal["done", "stopped", "preempted"]


def train(config: Config, index: ShardIndex, world: World, progress: Progress) -> Ending:
    """Train on the clips of `index`, carrying on from the checkpoint in `run_dir` if any.

    `progress` is kept up to date, so that whoever called knows how far it came. Raises
    NonFiniteError where training is lost, and UserError for what a user can put right.
    """
    read, told = wording.open_text(config, index, world)
    torch.manual_seed(config.seed)
    objective = objectives.build(config)
    if config.compile:
        compiled.compile_parts(objective.model)
    engine = Engine(objective, config, world, read)
    ema = EMA([piece.tensor for piece in engine.pieces()], config.ema_decay)
    resumed = snapshot.resume(engine, ema, config) or Progress()
    progress.clips, progress.step, progress.faults = resumed.clips, resumed.step, resumed.faults
    total = stream.total_clips(index, config)
    if world.main:
        replace_text(config.run_dir / "config.yaml", dump(config))
    announce(engine, progress, total, told)
    if progress.clips >= total:
        return "done"
    with Metrics(config, world, progress, total) as metrics, Saver(engine, ema) as saver:
        return _steps(saver, index, metrics, progress)


def _steps(saver: Saver, index: ShardIndex, metrics: Metrics, progress: Progress) -> Ending:
    engine, ema, config, world = saver.engine, saver.ema, saver.engine.config, saver.world
    total, size = stream.total_clips(index, config), config.batch_size
    switches, remedy = Switches(config.run_dir, world), Remedy(saver, progress)
    batches = stream.steps(index, config, world.rank, world.size, start=progress.clips)
    quarantine = Quarantine(config, world, len(index))
    for batch in metrics.waiting(quarantine.watching(batches)):
        kl_weight = schedule.kl_weight(progress.clips, total, config)
        rate = schedule.learning_rate(progress.clips, total, config)
        terms = engine.step(batch, kl_weight, rate, remedy.approves)
        progress.advance(size)
        if remedy.good:
            ema.update(progress.step)
        metrics.add(terms, skipped=not remedy.good)
        remedy.apply()
        asked = switches.asked()
        ends = progress.clips >= total or asked.stop is not None
        saves = remedy.may_save(progress.passed(config.save_every, size)) or asked.save or ends
        if saves or progress.passed(config.log_every, size):
            own = engine.own_time.take() + metrics.waited
            slow = stragglers.slowest(world, own, metrics.elapsed, config.watchdog.slow_ratio)
            rates = {"learning_rate": rate, "kl_weight": kl_weight}
            figures = metrics.flush(progress, rates | slow | quarantine.flush())
            saver.score(figures)  # a wrong name is told at the first line, not at the first save
        with world.pulse.phase("checkpoint"):
            if saves:
                saver.save(progress, figures)
            if asked.save or ends:
                saver.wait(strict=ends)
                switches.answered(asked)
        if ends:
            return asked.stop or "done"
        world.pulse.beat(progress.step)
    raise AssertionError("the stream of batches has no end")
