"""What happened to a run: order of its steps, starts, the ending, and what is not measured."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

from sdevid.report.record import Line, Record
from sdevid.report.words import table

GAP_SECONDS = 60.0  # between two lines of the metrics; a longer one is a pause
FEW = 3  # held-out source videos; intervals over fewer say little


def warnings(run: Record) -> str:
    """Collect what is wrong with the run or its evaluation, as one block; empty if nothing is."""
    warnings_of_run = [*_order(run), *_owners(run), *_ending(run), *_evaluation(run)]
    if not warnings_of_run:
        return ""
    listed = "".join(f"<p>{html.escape(text)}</p>" for text in warnings_of_run)
    return f'<div class="warning" role="note">{listed}</div>'


def section(run: Record) -> str:
    """Tabulate starts, resumes, pauses and faults, in the order of time."""
    if not run.metrics and not run.starts:
        return ""
    events = sorted(_events(run), key=lambda event: event[0])
    rows = [[text, where, _date(at)] for at, text, where in events]
    return f"<h2>History</h2>{table(['event', 'at', 'UTC'], rows)}"


def _events(run: Record) -> Iterator[tuple[float, str, str]]:
    """Yield the time in seconds, what happened, and at which step."""
    for start in run.starts:
        verb = "resumed" if start.get("step") else "started"
        count = int(start.get("processes") or 1)
        stage = int(start.get("zero_stage") or 0)
        text = f"{verb} on {count} process{'es' if count > 1 else ''}, ZeRO {stage}"
        yield _at(start), text, _place(start)
    if run.metrics:
        yield _at(run.metrics[0]), "first figures", _place(run.metrics[0])
    for before, after in pairwise(run.metrics):
        pause, places = _at(after) - _at(before), f"{_place(before)} to {_place(after)}"
        if (after.get("step") or 0) <= (before.get("step") or 0):
            yield _at(after), "went back, and on from there", places
        elif pause > max(GAP_SECONDS, 10 * _typical(run)):
            yield _at(before), f"pause of {pause / 60:.0f} min", _place(before)
    for line in run.metrics:
        if skipped := int(line.get("skipped") or 0):
            yield _at(line), f"updates of {skipped} bad steps skipped", _place(line)
    if run.ending:
        reason = html.escape(str(run.ending.get("reason", "unknown")))
        where = f"step {int(run.ending.get('step') or 0):,}"
        yield float(run.ending.get("time") or math.inf), f"ended: {reason}", where


def _at(line: Line) -> float:
    return line.get("time") or 0.0


def _date(seconds: float) -> str:
    if not 0 < seconds < 1e11:
        return ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _typical(run: Record) -> float:
    times = [line["time"] for line in run.metrics if line.get("time") is not None]
    spans = sorted(b - a for a, b in pairwise(times) if a is not None and b is not None)
    return spans[len(spans) // 2] if spans else 0.0


def _place(line: dict[str, float | None]) -> str:
    return f"step {int(line.get('step') or 0):,}, clip {int(line['clips'] or 0):,}"


def _order(run: Record) -> Iterator[str]:
    steps = [int(line["step"] or 0) for line in run.metrics if "step" in line]
    falls = [(a, b) for a, b in pairwise(steps) if b <= a]
    if falls:
        a, b = falls[0]
        yield (
            f"Steps run out of order {len(falls)} times (first: {a:,}, then {b:,}): the run went "
            "back to a checkpoint, or two trainings wrote into this folder."
        )


def _owners(run: Record) -> Iterator[str]:
    if run.refused is not None:
        when = datetime.fromtimestamp(float(run.refused.get("time") or 0), UTC)
        yield (
            f"Two owners: another training was started in this folder on {when:%Y-%m-%d at %H:%M} "
            "UTC and refused, while one was under way."
        )


def _ending(run: Record) -> Iterator[str]:
    ending = run.ending or {}
    if ending.get("reason") in ("failed", "nan"):
        yield f"Training ended: {ending['reason']}. {ending.get('message') or ''}".strip()


def _evaluation(run: Record) -> Iterator[str]:
    videos = (run.results or {}).get("protocol", {}).get("videos")
    if isinstance(videos, int) and videos < FEW:
        several = "one source video" if videos == 1 else f"{videos} source videos"
        yield (
            f"What was measured comes from {several} alone: clips of one video are alike, so "
            "intervals are too narrow, and the figures say little of other video."
        )
