"""Times the operators and a whole training step; refuses an operator whose tests are red.

    python kernels/bench.py [--sizes small map medium] [--seconds 20] [--compile]

Contestants run in one process, interleaved in random order; a figure is the least of its times (on
a CPU, of the thread's own time, so that a busy machine disturbs it less). OpenBLAS chooses its
kernels by the processor, whatever the environment tells it. Results go to
benchmarks/results/*.csv with machine, versions and date. GPU rows read "not measured yet" where
there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("OPENBLAS_CORETYPE", None)  # it takes the processor for what it is
os.environ.pop("OPENBLAS_L2_SIZE", None)

import torch
from bench_cases import DEVICE, ON_GPU, SIZES, Step, memory_of
from bench_ceilings import UNMEASURED, Row, time_arithmetic, time_em_step

ROOT = Path(__file__).resolve().parents[1]
OPERATORS = ("philox", "em_step", "em_trajectory")
NEEDS = {  # job: the operators whose tests must be green
    "em_step": {"philox", "em_step"},
    "arithmetic": {"philox", "em_trajectory"},
    "memory": {"philox", "em_trajectory"},
    "training_step": {"philox", "em_trajectory"},
}
CASE = ("device", "state MB", "pass", "gradient", "steps", "size", "contestant")


def clock() -> float:
    """Read a clock in seconds: the thread's own on a CPU, the device's on a GPU."""
    if ON_GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


def race(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Time each run in random interleaved order; return the least time of each, in seconds."""
    best = {}
    for name, run in runs.items():
        run()
        best[name] = float("inf")
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for name in random.sample(list(runs), len(runs)):
            began = clock()
            runs[name]()
            best[name] = min(best[name], clock() - began)
    return best


def time_training(names: list[str], seconds: float, compile_limit: float) -> list[Row]:
    """Time a whole training step by each contestant; return rows of times and ratios.

    No torch.compile where its limit is 0.
    """
    rows: list[Row] = []
    for name in names:
        step = Step(SIZES[name])
        runs = {
            "matrix products alone": step.products(),
            "ours": step.ours,
            "eager loop": step.eager,
            "torchsde sdeint": lambda step=step: step.torchsde(False),
            "torchsde sdeint_adjoint": lambda step=step: step.torchsde(True),
        }
        missing = [*list(runs)[1:], "torch.compile"] if not ON_GPU else []
        if compile_limit:
            compiled = compiled_step(step, compile_limit)
            if compiled is not None:
                runs["torch.compile"] = compiled
        best = race(runs, seconds)
        for contestant, taken in best.items():
            ratio = taken / best["matrix products alone"]
            times = {"milliseconds": f"{1e3 * taken:.3f}", "ratio to products": f"{ratio:.2f}"}
            times["times ours"] = f"{taken / best['ours']:.2f}"
            rows.append({"device": DEVICE, "size": name, "contestant": contestant, **times})
        if compile_limit and "torch.compile" not in best:
            late = f"not compiled in {compile_limit:.0f} s"
            rows.append(_blank(DEVICE, name, "torch.compile", late))
        rows += [_blank("cuda", name, contestant, UNMEASURED) for contestant in missing]
    return rows


def _blank(device: str, size: str, contestant: str, why: str) -> Row:
    figures = dict.fromkeys(("milliseconds", "ratio to products", "times ours"), why)
    return {"device": device, "size": size, "contestant": contestant, **figures}


def compiled_step(step: Step, limit: float) -> Callable[[], None] | None:
    """Compile the plain loop by torch.compile, with CUDA graphs on a GPU.

    None where compiling takes longer than `limit` seconds.
    """
    loop = torch.compile(step.loop, mode="reduce-overhead" if ON_GPU else "default")

    def run() -> None:
        if ON_GPU:
            torch.compiler.cudagraph_mark_step_begin()
        step.finish(*loop(step.increments()))

    def late(*_signal: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        for _ in range(3):  # compiles, warms up, records the graph
            run()
    except Exception:  # the compiler wraps what is raised inside it
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            raise  # not for the time
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return run


def measure_memory(counts: list[int]) -> list[Row]:
    """Measure peak memory against the number of steps; on a CPU each in a process of its own."""
    rows: list[Row] = []
    for gradient in ("backprop", "checkpoint", "reversible", "em_trajectory"):
        for steps in counts:
            if ON_GPU:
                peak = f"{memory_of(gradient, steps):.1f}"
            else:
                command = [sys.executable, __file__, "--memory-of", gradient, str(steps)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                peak = done.stdout.split()[-1]
            rows.append({"device": DEVICE, "gradient": gradient, "steps": steps, "peak MB": peak})
    return rows


def red(operators: tuple[str, ...]) -> list[str]:
    """Test the operators and return those whose tests do not pass.

    Those that passed on this very code count as green.
    """
    memory = ROOT / "build" / "green.json"
    earlier = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() else {}
    mark = fingerprint()
    green = set(earlier["operators"]) if earlier.get("code") == mark else set()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    running = {}
    for name in operators:
        paths = map(str, sorted((ROOT / "tests/kernels").glob(f"test_{name}*.py")))
        if name not in green:
            running[name] = subprocess.Popen(
                [*command, *paths], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
    failed = [name for name, process in running.items() if process.wait()]
    green |= set(running) - set(failed)
    memory.parent.mkdir(exist_ok=True)
    memory.write_text(json.dumps({"code": mark, "operators": sorted(green)}), encoding="utf-8")
    return failed


def fingerprint() -> str:
    """Hash the operators, their tests, torch's version and the machine."""
    digest = hashlib.sha256(f"{torch.__version__} {machine()}".encode())
    for folder in ("kernels/sdevid_kernels", "tests/kernels", "sdevid/sde"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def machine() -> str:
    """Describe what the figures were measured on."""
    if ON_GPU:
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, 1 of {os.cpu_count()} cores"


def write(name: str, rows: list[Row], folder: Path) -> None:
    """Write rows with machine, versions and date to `folder`/name.csv.

    Earlier rows of another device, size or case stay, except rows that were never measured.
    """
    versions = {kit: importlib.metadata.version(kit) for kit in ("torch", "triton", "torchsde")}
    date = datetime.date.today().isoformat()
    load = f"{os.getloadavg()[0]:.1f}"
    about: Row = {"date": date, "machine": machine(), "load": load, **versions}
    nowhere = about | {"date": "", "machine": UNMEASURED, "load": ""}
    columns = [*rows[0], *about]
    path = folder / f"{name}.csv"
    merged: dict[tuple[str, ...], Row] = {}
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if list(row) == columns]
        merged = {_case(row): dict(row) for row in kept}
    for row in rows:
        blank = UNMEASURED in row.values()
        if not blank or merged.get(_case(row), nowhere)["machine"] == UNMEASURED:
            merged[_case(row)] = row | (nowhere if blank else about)
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(merged.values())


def _case(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return the columns that identify what a row measures."""
    return tuple(str(row[column]) for column in CASE if column in row)


def table(rows: list[Row]) -> str:
    """Format rows as aligned columns."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    )


def main() -> int:
    """Run the jobs named on the command line and write their tables; return the exit code."""
    parser = argparse.ArgumentParser(description="Time the fused operators.")
    parser.add_argument("--jobs", nargs="+", choices=list(NEEDS), default=list(NEEDS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES)[1:])
    parser.add_argument("--seconds", type=float, default=20.0, help="a size")
    parser.add_argument(
        "--compile-limit", type=float, default=0.0, help="seconds a size for torch.compile"
    )
    parser.add_argument("--memory-steps", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(f"{memory_of(arguments.memory_of[0], int(arguments.memory_of[1])):.1f}")
        return 0
    failed = red(tuple(x for x in OPERATORS if any(x in NEEDS[job] for job in arguments.jobs)))
    for name in failed:
        print(f"{name} is not timed: its tests are red (pytest tests/kernels/test_{name}.py)")
    seconds = arguments.seconds
    jobs: dict[str, Callable[[], list[Row]]] = {
        "em_step": lambda: time_em_step(seconds),
        "arithmetic": lambda: time_arithmetic(seconds),
        "memory": lambda: measure_memory(arguments.memory_steps),
        "training_step": lambda: time_training(arguments.sizes, seconds, arguments.compile_limit),
    }
    for name in arguments.jobs:
        if not NEEDS[name] & set(failed):
            rows = jobs[name]()
            write(name, rows, arguments.output)
            print(f"\n{name}\n{table(rows)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
