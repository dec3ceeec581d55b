"""A run from its start to its `exit.json`."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path

from sdevid.checkpoint import Progress, replace_text
from sdevid.config import Config
from sdevid.data import shards, stream
from sdevid.data.folder import Access
from sdevid.errors import NonFiniteError, UserError
from sdevid.train import preflight
from sdevid.train.loop import train
from sdevid.train.world import World, open_world

FAILED = 1  # exit code


def run(config: Config) -> int:
    """Train as `config` says, or carry on. Returns the exit code; raises UserError.

    Whatever the ending, `exit.json` in `run_dir` names it and the step it came to.
    """
    with open_world() as world:
        progress = Progress()
        try:
            _prepare(config, world)
            if config.preflight:
                index = preflight.check(config, world)
            else:
                index = shards.open_shards(config.data, config.split, Access.of(config))
            stream.check(index, config)
            reason: str = train(config, index, world, progress)
        except NonFiniteError as error:
            world.say(f"training has diverged: {error}; the last checkpoint is from before that")
            _end(config.run_dir, world, "nan", progress, str(error))
            return FAILED
        except UserError as error:
            _end(config.run_dir, world, "failed", progress, str(error), retry=False)
            raise
        except Exception:
            _end(config.run_dir, world, "failed", progress, traceback.format_exc())
            raise
        _end(config.run_dir, world, reason, progress, retry=reason == "preempted")
        world.say(f"{reason} at step {progress.step}, clip {progress.clips:,}: {config.run_dir}")
    return 0


def _prepare(config: Config, world: World) -> None:
    if not world.main:
        return
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        (config.run_dir / "exit.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"run_dir is {config.run_dir}, but it cannot be written: {error}"
        ) from error


def _end(
    run_dir: Path,
    world: World,
    reason: str,
    progress: Progress,
    message: str = "",
    *,
    retry: bool = True,
) -> None:
    """Write `exit.json`; `retry` says whether starting again with nothing changed may help."""
    if not world.main:
        return
    ending = {"reason": reason, "step": progress.step, "clips": progress.clips, "time": time.time()}
    ending |= {"retry": retry, "message": message}
    try:
        replace_text(run_dir / "exit.json", json.dumps(ending) + "\n")
    except OSError as error:
        world.say(f"exit.json could not be written to {run_dir}: {error}")
