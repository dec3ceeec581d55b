"""Counts what each config asks of a GPU and writes the table of docs/gpu.md.

    python tests/gpu_rehearsal/table.py --output docs/gpu.md [--before TREE] [--rows default,demo]

TREE is a checkout of another commit, whose steps are counted by the same code: the columns
"before". The table stands between two comments of the page, and nothing else of it is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
LAUNCH = 4.0  # microseconds of the host for a launch: assumed, not measured
BEGIN, END = "<!-- rehearsal: begin -->", "<!-- rehearsal: end -->"


SHORT = ("sequence_length=4", "observation.max_context=2")  # sizes whose 16 frames take minutes


class Row(NamedTuple):
    """A config, its overrides, and whether a training step or a window of video is counted."""

    kind: str
    config: str
    overrides: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name the row for the page."""
        hidden = ("observation.keyframes", "observation.max_context")
        words = [f"`{each}`" for each in self.overrides if not each.startswith(hidden)]
        return ", ".join([self.config, *words])


ROWS = (
    Row("train", "demo"),
    Row("train", "demo", ("sde.order=2",)),
    Row("train", "demo", ("text.encoder=bytes",)),
    Row("train", "demo", ("zero_stage=2",)),
    Row("train", "demo", ("zero_stage=3",)),
    Row("train", "signs"),
    Row("train", "signs", ("model_type=sde_matching",)),
    Row("train", "signs", ("model_type=follmer",)),
    Row("train", "signs", ("observation.ends_fraction=0.1", "observation.keyframes_fraction=0.1")),
    Row("train", "smmnist"),
    Row("train", "smmnist", ("encoder.carried_layers=0",)),
    Row("train", "smmnist-things"),
    Row("train", "sprites"),
    Row("train", "brownian"),
    Row("train", "brownian-film"),
    Row("train", "docs/radar"),
    Row("train", "default"),
    Row("train", "ucf101"),
    Row("train", "kinetics"),
    Row("train", "default", ("size=S",)),
    *(Row("train", "default", (f"size={size}", *SHORT)) for size in ("S", "B", "L", "XL", "1B")),
    Row("sample", "demo"),
    Row("sample", "signs"),
    Row("sample", "signs", ("model_type=follmer",)),
    Row("sample", "smmnist"),
    Row("sample", "smmnist-things"),
    Row("sample", "sprites"),
    Row("sample", "brownian"),
    Row("sample", "brownian-film"),
    Row("sample", "docs/radar"),
    Row("sample", "default"),
    Row("sample", "ucf101"),
    Row("sample", "kinetics"),
    Row("sample", "default", ("size=S",)),
    *(Row("sample", "default", (f"size={size}", *SHORT)) for size in ("S", "B", "L", "XL", "1B")),
)
Counts = dict[str, object]  # launches, waits, copies; or why not, under "error"


def count(row: Row) -> Counts:
    """Count one row in this process."""
    import rehearsal

    try:
        plain = "encoder.attention=sdpa"  # xformers has no kernel for what is no GPU
        asked = getattr(rehearsal, row.kind)(row.config, plain, *row.overrides)
    except Exception as error:  # an older edition may lack the config, or mix devices
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    waits, copies = sum(asked.waits.values()), sum(asked.copies.values())
    return {"launches": asked.launches, "waits": waits, "copies": copies, "draws": asked.draws}


def counted(tree: Path, rows: list[Row]) -> list[Counts]:
    """Count rows by the code of `tree`, each in the order given, in one process of its own."""
    path = os.pathsep.join([str(tree), str(tree / "kernels"), str(HERE)])
    environment = os.environ | {"PYTHONPATH": path, "SDEVID_REHEARSED": str(tree)}
    command = [sys.executable, str(Path(__file__)), "--count", json.dumps(rows)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line[4:] for line in done.stdout.splitlines() if line.startswith("row ")]
    return [json.loads(line) for line in lines]


def table(rows: list[Row], now: list[Counts], before: list[Counts] | None) -> str:
    """Format the rows in Markdown."""
    head = ["Config", "Launches", "Waits", "Copies", "Draws", "Computed floor, ms"]
    if before is not None:
        head += ["Launches before", "Waits before", "Copies before"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for k, row in enumerate(rows):
        if k == 0 or row.kind != rows[k - 1].kind:
            title = {"train": "An optimizer's step", "sample": "A window of frames"}[row.kind]
            lines.append(f"| **{title}** |" + " |" * (len(head) - 1))
        cells = [row.label, *_cells(now[k], ("launches", "waits", "copies", "draws"))]
        launches = now[k].get("launches")
        cells.append(f"{launches * LAUNCH / 1000:.1f}" if isinstance(launches, int) else "")
        if before is not None:
            cells += _cells(before[k], ("launches", "waits", "copies"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(counts: Counts, names: tuple[str, ...]) -> list[str]:
    if "error" in counts:
        print(counts["error"], file=sys.stderr)
        return ["not counted", *[""] * (len(names) - 1)]
    return [f"{counts[name]:,}" for name in names]


def main() -> None:
    """Count, and write or print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, help="page whose table is replaced; else printed")
    parser.add_argument("--before", type=Path, help="checkout of another commit")
    parser.add_argument("--rows", help="configs, separated by commas; all by default")
    parser.add_argument("--count", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        for kind, config, overrides in json.loads(options.count):
            print("row", json.dumps(count(Row(kind, config, tuple(overrides)))), flush=True)
        return
    named = options.rows.split(",") if options.rows else None
    rows = [row for row in ROWS if named is None or row.config in named]
    trees = [HERE.parents[1], *([options.before.resolve()] if options.before else [])]
    with ThreadPoolExecutor() as pool:  # a process each
        now, *before = pool.map(partial(counted, rows=rows), trees)
    text = table(rows, now, before[0] if before else None)
    if options.output is None:
        print(text)
        return
    page = options.output.read_text(encoding="utf-8")
    first, rest = page.split(BEGIN)
    last = rest.split(END)[1]
    options.output.write_text(f"{first}{BEGIN}\n{text}\n{END}{last}", encoding="utf-8")


if __name__ == "__main__":
    main()
