"""Everything that needs a GPU, in one command: steps of training, tests, benchmarks, sanitizer.

    make gpu-check [PYTHON=python3]            under 6 minutes; installs nothing
    python tools/gpu_check.py --first          the first 90 s alone: what tells most
    python tools/gpu_check.py --cpu            rehearses every step at a tiny size on a CPU

A step that fails does not stop the others; the exit code is 1 if any did, 2 without a GPU. Outcomes
and figures go to benchmarks/results/gpu-check-DATE-GPU.csv after each step, so that a cut at any
time leaves what was measured; those of a rehearsal, which say nothing of a GPU, go to
build/gpu-check/.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 350.0  # seconds for all steps: what is left of 6 minutes covers the start
FIRST = 90.0  # seconds for the steps that tell most
PATIENCE = 4  # times as long for a rehearsal, whose CPU may be busy
LEAST = 5.0  # seconds under which a step is not begun
PACKAGES = ("torch", "triton", "deepspeed", "xformers", "numpy")
Figures = dict[str, str]
FIRST_CONFIGS = {  # what benchmarks/gpu_step.py is told
    "default": ["--config", "default"],
    "default size=S": ["--config", "default", "size=S"],
    "demo": ["--config", "demo"],
}
GRAPH_CONFIGS = {
    "default with a graph": ["--config", "default", "train_graph=on"],
    "default without a graph": ["--config", "default", "train_graph=off"],
}


class Step(NamedTuple):
    """One part of the check. Without a command it was left out, and `note` says why."""

    name: str
    commands: list[list[str]]
    limit: float  # seconds
    figures: Callable[[], Figures]  # read once the commands have ended
    note: str = ""


class Outcome(NamedTuple):
    """What became of a step: passed, failed, timed out, left out."""

    name: str
    word: str
    seconds: float
    figures: Figures
    note: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether the step failed or timed out."""
        return self.word in ("failed", "timed out")


def steps(cpu: bool, work: Path, results: Path, first: bool = False) -> list[Step]:
    """List the check's steps by what they tell; with `first` those of the first 90 s alone."""
    commands = [*_optimizer_steps(cpu, work, FIRST_CONFIGS), _em_step(cpu, results)]
    if not first:
        commands += [
            _tests(cpu),
            *_benchmarks(cpu, results),
            *(_sanitizer(tool, cpu) for tool in ("memcheck", "racecheck")),
            *_optimizer_steps(cpu, work, GRAPH_CONFIGS),
            _training(cpu, work),
        ]
    return [step._replace(limit=step.limit * PATIENCE) for step in commands] if cpu else commands


def _optimizer_steps(cpu: bool, work: Path, configs: dict[str, list[str]]) -> list[Step]:
    """Plan an optimizer's step of each config: clips a second, launches, waits, MFU."""
    table = work / "gpu_step.csv"
    run = [sys.executable, "benchmarks/gpu_step.py", "--output", str(table)]
    tiny = ["--seconds", "0.2", "frame_size=16", "batch_size=2", "micro_batch_size=2"]
    todo = []
    for name, words in configs.items():
        if cpu:
            possible = [word for word in words[2:] if word != "train_graph=on"]
            words = ["--config", "demo", *possible, *tiny]
        command = [*run, "--name", name, *words]
        todo.append(
            Step(f"step of {name}", [command], 25, lambda name=name: _step_figures(table, name))  # type: ignore[misc]
        )
    return todo


def _step_figures(table: Path, name: str) -> Figures:
    with table.open(newline="", encoding="utf-8") as file:
        return {row["figure"]: row["value"] for row in csv.DictReader(file) if row["name"] == name}


def _em_step(cpu: bool, results: Path) -> Step:
    bench = [sys.executable, "kernels/bench.py", "--output", str(results), "--jobs", "em_step"]
    budget = ["--seconds", "0.3" if cpu else "4"]
    return Step(
        "benchmark: em_step",
        [[*bench, *budget]],
        30,
        lambda: _figures(results, ("em_step",), None),
    )


def _tests(cpu: bool) -> Step:
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    few = ["tests/kernels/test_philox.py", "tests/kernels/test_em_step.py"]
    if importlib.util.find_spec("xdist") and not cpu:
        pytest += ["-n", "12"]  # most of their time is Triton's compiling
    chosen = few if cpu else ["-m", "gpu", *_files_of("mark.gpu")]
    return Step("gpu tests", [[*pytest, *chosen]], 100, dict)


def _files_of(mark: str) -> list[str]:
    """Find the test files with this mark: others may import what a GPU node does not have."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(path.relative_to(ROOT)) for path in files if mark in path.read_text(encoding="utf-8")
    ]


def _sanitizer(tool: str, cpu: bool) -> Step:
    run = [sys.executable, "kernels/small_run.py"]
    program = shutil.which("compute-sanitizer")
    if cpu:
        return Step(tool, [run], 60, dict, "without the sanitizer, under Triton's interpreter")
    if program is None:
        return Step(tool, [], 0, dict, "compute-sanitizer is not on the PATH")
    watched = [program, "--tool", tool, "--error-exitcode", "9", *run]
    return Step(tool, [watched], 30, dict)


def _benchmarks(cpu: bool, results: Path) -> list[Step]:
    """Plan one process for each, so that one that does not end costs only its own figures."""
    bench = [sys.executable, "kernels/bench.py", "--output", str(results)]
    budget = ["--seconds", "0.3" if cpu else "4"]
    sizes = ["tiny"] if cpu else ["small", "map", "medium"]
    memory = ["--memory-steps", *(["2", "4"] if cpu else ["32", "128", "512"])]
    commands = [
        Step(
            "benchmark: arithmetic and memory",
            [[*bench, *budget, *memory, "--jobs", "arithmetic", "memory"]],
            60,
            lambda: _figures(results, ("arithmetic", "memory"), None),
        )
    ]
    for size in sizes:
        job = ["--jobs", "training_step", "--sizes", size]
        compiled = [] if size == "medium" or cpu else ["--compile-limit", "30"]
        commands.append(
            Step(
                f"benchmark: training step, {size}",
                [[*bench, *budget, *job, *compiled]],
                60 if compiled else 40,
                lambda size=size: _figures(results, ("training_step",), size),  # type: ignore[misc]
            )
        )
    return commands


def _training(cpu: bool, work: Path) -> Step:
    data, run = work / "data", work / "run"
    clips = 320 if cpu else 3200
    draw = ["--dataset", "double-well", "--num_clips", "80" if cpu else "1000"]
    train = ["--config", "configs/demo.yaml", f"run_dir={run}", f"data={data}"]
    lengths = [f"max_clips={clips}", "log_every=32", f"save_every={clips}"]
    return Step(
        "short training",
        [
            [sys.executable, "tools/make_shards.py", *draw, "--output_dir", str(data)],
            [sys.executable, "-m", "sdevid", "train", *train, *lengths],
        ],
        60,
        lambda: _trained(run),
    )


def _trained(run: Path) -> Figures:
    """Read the last figures of a run; raise ValueError where it did not end as it should."""
    ended = json.loads((run / "exit.json").read_text(encoding="utf-8"))
    if ended["reason"] != "done":
        raise ValueError(f"the run ended as {ended['reason']!r}, not 'done'")
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    first, last = lines[0], lines[-1]
    if not last["loss"] < first["loss"]:
        raise ValueError(f"the loss did not fall: {first['loss']:.1f}, then {last['loss']:.1f}")
    return {
        "clips": str(last["clips"]),
        "first loss, nats": f"{first['loss']:.1f}",
        "last loss, nats": f"{last['loss']:.1f}",
        "clips/s": f"{last['clips_per_s']:.0f}",
    }


WHAT = {  # file: the columns that name a row, and those that it measures
    "em_step": (("state MB", "pass"), ("GB/s", "share of copy")),
    "arithmetic": (("size", "pass"), ("TFLOP/s", "share of matmul")),
    "memory": (("gradient", "steps"), ("peak MB",)),
    "training_step": (("size", "contestant"), ("milliseconds", "times ours")),
}


def _figures(folder: Path, names: tuple[str, ...], size: str | None) -> Figures:
    """Read what the benchmark wrote for this device, one figure a cell."""
    figures: Figures = {}
    for name in names:
        labels, metrics = WHAT[name]
        with (folder / f"{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["device"] != _device() or (size and row["size"] != size):
                    continue
                label = " ".join(row[column] for column in labels)
                figures |= {f"{name} {label}: {measure}": row[measure] for measure in metrics}
    return figures


def run(step: Step, limit: float, log: Path) -> Outcome:
    """Run a step's commands one after the other, its output to the screen and to `log`."""
    if not step.commands:
        return Outcome(step.name, "left out", 0.0, {}, step.note)
    if limit < LEAST:
        return Outcome(step.name, "timed out", 0.0, {}, "no time was left to begin it")
    began = time.monotonic()
    word, note = "passed", step.note
    for command in step.commands:
        code = _ended(command, limit - (time.monotonic() - began), log)
        if code is None:
            word, note = "timed out", f"ended after its {limit:.0f} s"
            break
        if code:
            word, note = "failed", f"exit code {code}: {_shown(command)}"
            break
    figures: Figures = {}
    if word == "passed":
        try:
            figures = step.figures()
        except (OSError, ValueError, KeyError, IndexError) as error:
            word, note = "failed", f"{type(error).__name__}: {error}"
    return Outcome(step.name, word, time.monotonic() - began, figures, note)


def _ended(command: list[str], seconds: float, log: Path) -> int | None:
    """Run a command; return its exit code, None where it was killed, children too, for its time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(max(seconds, 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, KeyboardInterrupt):
                raise
            code = None
    print(
        "\n".join(log.read_text(errors="replace", encoding="utf-8").splitlines()[-30:]), flush=True
    )
    return code


def _shown(command: list[str]) -> str:
    return " ".join(Path(part).name if part == sys.executable else part for part in command)


def environment() -> Figures:
    """Collect machine, versions and date."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    about = {"date": datetime.date.today().isoformat(), "machine": _machine()}
    more = {"python": platform.python_version(), "commit": commit.stdout.strip() or "unknown"}
    return about | more | versions


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _machine() -> str:
    import torch

    if _device() == "cpu":
        return f"rehearsal on a CPU ({platform.machine()}), not a GPU"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def write(outcomes: list[Outcome], about: Figures, path: Path) -> None:
    """Write a row for each step and each figure, with machine, versions and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["step", "outcome", "seconds", "note", "figure", "value"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *about], restval="")
        writer.writeheader()
        for outcome in outcomes:
            row = {"step": outcome.name, "outcome": outcome.word, "note": outcome.note}
            writer.writerow({**row, "seconds": f"{outcome.seconds:.1f}", **about})
            for figure, value in outcome.figures.items():
                writer.writerow({"step": outcome.name, "figure": figure, "value": value, **about})


def table(outcomes: list[Outcome]) -> str:
    """Format a line for each step."""
    wide = max(len(outcome.name) for outcome in outcomes)
    return "\n".join(
        f"{outcome.name:<{wide}}  {outcome.word:<9}  {outcome.seconds:6.1f} s  {outcome.note}"
        for outcome in outcomes
    )


def check(todo: list[Step], seconds: float, logs: Path, path: Path) -> list[Outcome]:
    """Run every step, within `seconds` in all; write the outcomes to `path` as they come in."""
    about, outcomes, began = environment(), [], time.monotonic()
    for step in todo:
        print(f"\n== {step.name}", flush=True)
        left = seconds - (time.monotonic() - began)
        log = logs / f"{re.sub(r'[^a-z]+', '-', step.name)}.log"
        outcomes.append(run(step, min(step.limit, left), log))
        write(outcomes, about, path)
    return outcomes


def main(words: list[str] | None = None) -> int:
    """Run the check. Returns 0, 1 if a step failed, 2 where the wrong device is there."""
    parser = argparse.ArgumentParser(description="Everything that needs a GPU, in one command.")
    parser.add_argument("--cpu", action="store_true", help="rehearse on a CPU, at a tiny size")
    parser.add_argument("--first", action="store_true", help="the first 90 s alone")
    parser.add_argument("--seconds", type=float, help="for all steps")
    arguments = parser.parse_args(words)
    device = _device()
    if device != ("cpu" if arguments.cpu else "cuda"):
        has = "finds no GPU" if device == "cpu" else "finds a GPU, which --cpu does not use"
        print(
            f"gpu-check: torch {has}; on a GPU node: make gpu-check PYTHON=python3; without a GPU: "
            "python tools/gpu_check.py --cpu rehearses every step",
            file=sys.stderr,
        )
        return 2
    work = ROOT / "build" / "gpu-check"
    shutil.rmtree(work, ignore_errors=True)
    results = work if arguments.cpu else ROOT / "benchmarks" / "results"
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    machine, date = _machine(), datetime.date.today().isoformat()
    name = "rehearsal" if arguments.cpu else machine.split(",")[0]
    path = results / f"gpu-check-{date}-{re.sub(r'[^A-Za-z0-9]+', '-', name)}.csv"
    todo = steps(arguments.cpu, work, results, arguments.first)
    allowed = FIRST if arguments.first else ALLOWED
    allowed = arguments.seconds or allowed * (PATIENCE if arguments.cpu else 1)
    outcomes = check(todo, allowed, work / "logs", path)
    print(f"\n{machine}, {date}\n{table(outcomes)}\n{path.relative_to(ROOT)}")
    return int(any(outcome.is_bad for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
