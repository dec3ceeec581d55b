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
from sdevid.console import redacted

NAME = "exit.json"
REFUSED = "exit-refused.json"


def write(
    run_dir: Path, reason: str, progress: Progress, message: str = "", *, retry: bool = True
) -> None:
    """Write `exit.json`, over any earlier one; a failure to write is reported.

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
    """Write `exit.json` unless another rank has.

    The first rank to fail knows the cause; the others know only that they were left alone.
    """
    aside = run_dir / f".exit-{rank}.json"
    try:
        aside.write_text(_text(reason, progress, message, retry), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(aside, run_dir / NAME)
        aside.unlink()
    except OSError as error:
        _complain(run_dir, error)


def _text(reason: str, progress: Progress, message: str, retry: bool) -> str:
    ending = {"reason": reason, "step": progress.step, "clips": progress.clips, "time": time.time()}
    attempt = os.environ.get("SDEVID_ATTEMPT")  # of a Slurm job, for slurm/requeue.sh
    more = {"retry": retry, "attempt": attempt, "message": redacted(message)}
    return json.dumps(ending | more) + "\n"


def write_refused(run_dir: Path, message: str) -> None:
    """Write `exit-refused.json`: this start did not get `run_dir`, which is its owner's."""
    try:
        replace_text(run_dir / REFUSED, _text("refused", Progress(), message, retry=False))
    except OSError as error:
        _complain(run_dir, error)


def _complain(run_dir: Path, error: OSError) -> None:
    print(f"exit.json could not be written to {run_dir}: {error}", file=sys.stderr, flush=True)
