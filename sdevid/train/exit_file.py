"""`exit.json`: how a run ended, for whoever starts it again."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from sdevid.atomic_file import replace_text
from sdevid.checkpoint import Progress

NAME = "exit.json"


def write(
    run_dir: Path, reason: str, progress: Progress, message: str = "", *, retry: bool = True
) -> None:
    """Write `exit.json`, over any former one. What cannot be written is said.

    `retry` says whether starting again with nothing changed may help.
    """
    try:
        replace_text(run_dir / NAME, _text(reason, progress, message, retry))
    except OSError as error:
        _complain(run_dir, error)


def write_first(
    run_dir: Path,
    reason: str,
    progress: Progress,
    message: str,
    rank: int,
    *,
    retry: bool = True,
) -> None:
    """Write `exit.json` unless another rank has: the first to fail knows the cause, the others
    only that they were left alone."""
    aside = run_dir / f".exit-{rank}.json"
    try:
        aside.write_text(_text(reason, progress, message, retry))
        with contextlib.suppress(FileExistsError):
            os.link(aside, run_dir / NAME)
        aside.unlink()
    except OSError as error:
        _complain(run_dir, error)


def _text(reason: str, progress: Progress, message: str, retry: bool) -> str:
    ending = {"reason": reason, "step": progress.step, "clips": progress.clips, "time": time.time()}
    return json.dumps(ending | {"retry": retry, "message": message}) + "\n"


def _complain(run_dir: Path, error: OSError) -> None:
    print(f"exit.json could not be written to {run_dir}: {error}", file=sys.stderr, flush=True)
