"""Runs every drill and writes their table: `python tests/drills/table.py --output docs/drills.md`.

Needs root, for a disk of its own. Ends with 1 where a drill failed.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from drills import DRILLS, Drill, Row, Yard
from surroundings import SURROUNDINGS
from trials import STEPS, References, draw_clips

from sdevid.evaluate import provenance

AT_ONCE = 2  # drills; each has 2 to 4 processes, which wait for each other much of the time
HEAD = """# Drills

`make drills` runs these on any Linux machine, as root. Each makes a fault in a real run of several
gloo processes, carries the run on with the same command, and holds it to an uninterrupted run: the
weights, their average, and every line of `metrics.jsonl` must be equal, to the bit on the same
number of ranks, and within the order of float32 sums on another. Steps lost are those that were
run again, because they came after the last checkpoint.

| Fault | What happened | Steps lost |
| --- | --- | --- |
"""


def outcome(drill: Drill, yard: Yard) -> list[Row] | str:
    """A drill's rows, or how it failed."""
    began = time.monotonic()
    try:
        rows = list(drill(yard))
    except Exception:
        return f"{drill.__name__} failed:\n{traceback.format_exc()}"
    print(f"{drill.__name__}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def page(rows: Sequence[Row], seconds: float) -> str:
    """The table as Markdown, with what it was made on."""
    lines = "".join(f"| {row.fault} | {row.happened} | {row.lost} |\n" for row in rows)
    result = {**provenance.machine(), **provenance.versions()}
    machine = f"{result['cores']} cores of {result['processor']}, Python {result['python']}"
    versions = f"torch {result['torch']}, DeepSpeed {result['deepspeed']}"
    today = datetime.date.today().isoformat()
    return (
        f"{HEAD}{lines}\nOf {STEPS} steps, saved every second one but in the kills within a save, "
        f"where every one is. Made by `make drills` on {today} in {seconds:.0f} s: {machine}, "
        f"{versions}, no GPU.\n"
    )


def main() -> int:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what drills start heeds it, also under nohup
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    every = (*DRILLS, *SURROUNDINGS)
    names = [drill.__name__ for drill in every]
    parser.add_argument("--only", choices=names, nargs="+", default=names)
    chosen = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="drills-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        data = draw_clips(Path(folder) / "clips")
        yard = Yard(Path(folder), data, References(Path(folder), data))
        drills = [drill for drill in every if drill.__name__ in chosen.only]
        outcomes = list(pool.map(lambda drill: outcome(drill, yard), drills))
    failures = [result for result in outcomes if isinstance(result, str)]
    rows = [row for result in outcomes if not isinstance(result, str) for row in result]
    text = page(rows, time.monotonic() - began)
    print(text, *failures, sep="\n")
    if chosen.output and not failures:
        chosen.output.write_text(text, encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
