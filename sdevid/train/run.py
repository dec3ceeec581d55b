"""A run from its start to its `exit.json`."""

from __future__ import annotations

import errno
import sys
import traceback

from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.data import shards, stream
from sdevid.data.folder import Access
from sdevid.errors import NonFiniteError, UserError
from sdevid.train import compiled, exit_file
from sdevid.train.checkpointing.saver import SaveError
from sdevid.train.health import out_of_memory, preflight
from sdevid.train.health.watchdog import Watchdog
from sdevid.train.loop import train
from sdevid.train.world import World, open_world

FAILED = 1  # exit code
_FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or a user's share of it


def run(config: Config) -> int:
    """Train as `config` says, or carry on. Returns the exit code; raises UserError.

    Whatever the ending, `exit.json` in `run_dir` names it and the step it came to.
    """
    with open_world() as world:
        progress = Progress()
        try:
            _prepare(config, world)
            with Watchdog(config, world, progress):
                reason = _train(config, world, progress)
                if world.main:
                    retry = reason == "preempted"
                    exit_file.write(config.run_dir, reason, progress, retry=retry)
                world.barrier()  # srun ends a node once another has: none before exit.json is there
        except NonFiniteError as error:
            world.say(f"training has diverged: {error}; the last checkpoint is from before that")
            if world.main:
                exit_file.write(config.run_dir, "nan", progress, str(error))
            return FAILED
        except Exception as error:
            return _failed(error, config, world, progress)
        world.say(f"{reason} at step {progress.step}, clip {progress.clips:,}: {config.run_dir}")
    return 0


def _train(config: Config, world: World, progress: Progress) -> str:
    compiled.check(config, world.device)
    if config.preflight:
        index = preflight.check(config, world)
    else:
        index = shards.open_shards(config.data, config.split, Access.of(config))
    stream.check(index, config)
    return train(config, index, world, progress)


def _failed(error: Exception, config: Config, world: World, progress: Progress) -> int:
    """Write down a failure of this rank; the others may know nothing of it. Raises most again."""
    if isinstance(error, UserError):
        retry = isinstance(error, SaveError)
        if world.main:
            exit_file.write(config.run_dir, "failed", progress, str(error), retry=retry)
        else:  # it may be this rank's alone: then the main one only sees it gone
            message = f"rank {world.rank}: {error}"
            exit_file.write_first(
                config.run_dir, "failed", progress, message, world.rank, retry=retry
            )
        raise error
    if out_of_memory.is_exhausted(error):
        summary = out_of_memory.report(error, config, world)
    elif isinstance(error, OSError) and error.errno in _FULL:
        summary = (
            f"rank {world.rank}: {error}; make room, in run_dir {config.run_dir} or on this node, "
            "and give the same command again"
        )
    else:
        message = f"rank {world.rank}: {traceback.format_exc()}"
        exit_file.write_first(config.run_dir, "failed", progress, message, world.rank)
        raise error
    exit_file.write_first(config.run_dir, "failed", progress, summary, world.rank)
    print(f"sdevid: {summary}", file=sys.stderr, flush=True)
    return FAILED


def _prepare(config: Config, world: World) -> None:
    if not world.main:
        return
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        (config.run_dir / exit_file.NAME).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"run_dir is {config.run_dir}, but it cannot be written: {error}"
        ) from error
