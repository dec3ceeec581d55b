"""A run from its start to its `exit.json`."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sdevid import owner
from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.console import redacted
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.errors import NonFiniteError, UserError, file_fault, is_exhausted
from sdevid.exit_code import ExitCode
from sdevid.owner import OwnedError
from sdevid.train import compiled, training_data
from sdevid.train.checkpointing.saver import SaveError
from sdevid.train.device_settings import backend_flags
from sdevid.train.health import disk, out_of_memory, preflight
from sdevid.train.health.watchdog import Watchdog
from sdevid.train.loop import train
from sdevid.train.record import exit_file
from sdevid.train.world import RendezvousError, World, open_world

_FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or a user's share of it
_CODES = {
    "done": ExitCode.FINISHED,
    "stopped": ExitCode.RESUMABLE,
    "preempted": ExitCode.RESUMABLE,
}


def train_run(config: Config, *, trust_checkpoint: bool = False) -> int:
    """Train as `config` says, or carry on. Returns an ExitCode; raises UserError.

    Whatever the ending, `exit.json` in `run_dir` names it and the step it came to; a start that is
    refused because another process owns `run_dir` writes `exit-refused.json` instead.
    `trust_checkpoint` lets a resume read a checkpoint of an older format, whose files may run code.
    """
    config = with_absolute_paths(config)
    try:
        with open_world() as world, _owned(config, world):
            return _run(config, world, trust_checkpoint)
    except RendezvousError as error:
        with suppress(OwnedError):
            owner.refuse_if_owned(config.run_dir, "run_dir")
            with suppress(OSError):  # which writing exit.json tells
                config.run_dir.mkdir(parents=True, exist_ok=True)
            rank = int(os.environ["RANK"])
            message = f"rank {rank}: {error}"
            exit_file.write_first(config.run_dir, "failed", Progress(), message, rank, retry=True)
        raise


def _run(config: Config, world: World, trust_checkpoint: bool) -> int:
    progress = Progress()
    try:
        with Watchdog(config, world, progress):
            reason = _train(config, world, progress, trust_checkpoint)
            if world.main:
                retry = reason == "preempted"
                exit_file.write(config.run_dir, reason, progress, retry=retry)
            world.barrier()  # srun ends a node once another has: none before exit.json is there
    except NonFiniteError as error:
        world.say(
            f"training has diverged: {error}; the last checkpoint is from before that", "error"
        )
        if world.main:
            exit_file.write(config.run_dir, "nan", progress, str(error))
        return ExitCode.LOST
    except KeyboardInterrupt:
        message = "interrupted twice: nothing was saved at the end"
        exit_file.write_first(config.run_dir, "stopped", progress, message, world.rank, retry=False)
        world.say(f"{message}; the same command carries on from the last checkpoint")
        return ExitCode.RESUMABLE
    except Exception as error:
        return exit_code_of(error, config, world, progress)
    world.say(f"{reason} at step {progress.step}, clip {progress.clips:,}: {config.run_dir}")
    return _CODES[reason]


def _train(config: Config, world: World, progress: Progress, trust_checkpoint: bool) -> str:
    compiled.check_compiler(config, world.device)
    if config.preflight:
        data = preflight.check_nodes(config, world)
    else:
        data = training_data.open_data(config, world.size)
    if isinstance(data, ShardIndex):
        stream.check_clips(data, config)
    with backend_flags(config):
        return train(config, data, world, progress, trust_checkpoint=trust_checkpoint)


@contextmanager
def _owned(config: Config, world: World) -> Iterator[None]:
    """Own `run_dir`, by the main rank for all; otherwise raise the same error on every rank."""
    refusal: UserError | None = None
    with ExitStack() as stack:
        if world.main:
            try:
                stack.enter_context(owner.own(config.run_dir, "run_dir", world.say))
                (config.run_dir / exit_file.NAME).unlink(missing_ok=True)
            except UserError as error:
                refusal = error
            except OSError as error:
                refusal = UserError(
                    f"run_dir is {config.run_dir}, but {exit_file.NAME} there cannot be replaced: "
                    f"{error}"
                )
        message = world.gather(str(refusal) if refusal else None)[0]
        if isinstance(refusal, OwnedError):
            exit_file.write_refused(config.run_dir, message)
        if message:
            raise refusal or UserError(message)
        yield


def with_absolute_paths(config: Config) -> Config:
    """Make every path of `config` absolute, so that it means the same from any folder."""
    changed: dict[str, object] = {"run_dir": config.run_dir.absolute()}
    if "://" not in config.data:
        changed["data"] = str(Path(config.data).absolute())
    for name in ("data_cache", "start_from"):
        if (path := getattr(config, name)) is not None:
            changed[name] = path.absolute()
    encoder = Path(config.text.encoder)
    if config.text.encoder not in ("bytes", "words", "none") and encoder.is_dir():
        changed["text"] = config.text.model_copy(update={"encoder": str(encoder.absolute())})
    if config.encoder.frozen is not None:
        frozen = str(Path(config.encoder.frozen).absolute())
        changed["encoder"] = config.encoder.model_copy(update={"frozen": frozen})
    if config.offload.nvme_path is not None:
        path = config.offload.nvme_path.absolute()
        changed["offload"] = config.offload.model_copy(update={"nvme_path": path})
    return config.model_copy(update=changed)


def exit_code_of(error: Exception, config: Config, world: World, progress: Progress) -> int:
    """Record a failure of this rank; the others may know nothing of it. Raises most again."""
    if isinstance(error, OSError) and error.filename is not None and error.errno not in _FULL:
        failure = UserError(file_fault(error))
        failure.__cause__ = error
        error = failure
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
    if is_exhausted(error):
        summary = out_of_memory.report(error, config, world)
    elif isinstance(error, OSError) and error.errno in _FULL:
        summary = (
            f"rank {world.rank}: {error} ({disk.free(config.run_dir)}); make room, in run_dir "
            f"{config.run_dir} or on this node, and give the same command again"
        )
    else:
        message = f"rank {world.rank}: {traceback.format_exc()}"
        exit_file.write_first(config.run_dir, "failed", progress, message, world.rank)
        raise error
    exit_file.write_first(config.run_dir, "failed", progress, summary, world.rank)
    print(f"sdevid: {redacted(summary)}", file=sys.stderr, flush=True)
    return ExitCode.USER
