"""`starts.jsonl`: every start and resume of a run, for the page."""

from __future__ import annotations

import json
import time

from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.train.world import World

NAME = "starts.jsonl"


def note(config: Config, world: World, progress: Progress) -> None:
    """Append where this start begins and on how much; main rank only. A failure is reported."""
    if not world.main:
        return
    line = {
        "time": time.time(),
        "step": progress.step,
        "clips": progress.clips,
        "processes": world.size,
        "zero_stage": config.zero_stage,
    }
    try:
        with (config.run_dir / NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        world.say(f"warning: {config.run_dir / NAME} cannot be written: {error}", "warning")
