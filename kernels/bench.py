"""Times the operators and a whole training step; refuses an operator whose tests are red.

    python kernels/bench.py [--sizes small map medium] [--seconds 20] [--compile]

Contestants run in one process, interleaved in random order; a figure is the least of its times (on
a CPU, of the thread's own time, so that a busy machine disturbs it less). Results go to
benchmarks/results/*.csv with machine, versions and date. GPU rows read "not measured yet" where
there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from bench_cases import DEVICE, ON_GPU, SIZES, Step, memory_of
from sdevid_kernels.em_step import em_step
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
UNMEASURED = "not measured yet"
OPERATORS = ("philox", "em_step", "heun_steps", "em_trajectory")


def clock() -> float:
    """Seconds: the thread's own on a CPU, the device's on a GPU."""
    if ON_GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


def race(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """The least time of each, in seconds, interleaved in random order."""
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


def time_training(names: list[str], seconds: float, compiled: bool) -> list[dict[str, object]]:
    """Rows of a whole training step's times and ratios."""
    rows: list[dict[str, object]] = []
    for name in names:
        step = Step(SIZES[name])
        runs = {
            "matrix products alone": step.products(),
            "ours": step.ours,
            "eager loop": step.eager,
            "torchsde sdeint": lambda step=step: step.torchsde(False),
            "torchsde sdeint_adjoint": lambda step=step: step.torchsde(True),
        }
        if compiled:
            mode = "reduce-overhead" if ON_GPU else "default"
            loop = torch.compile(step.loop, mode=mode)
            runs["torch.compile"] = lambda step=step, loop=loop: step.finish(
                *loop(step.increments())
            )
        best = race(runs, seconds)
        for contestant, taken in best.items():
            ratio = taken / best["matrix products alone"]
            times = {"milliseconds": f"{1e3 * taken:.3f}", "ratio to products": f"{ratio:.2f}"}
            times["times ours"] = f"{taken / best['ours']:.2f}"
            rows.append({"device": DEVICE, "size": name, "contestant": contestant, **times})
        if not ON_GPU:
            blank = dict.fromkeys(("milliseconds", "ratio to products", "times ours"), UNMEASURED)
            rows += [
                {"device": "cuda", "size": name, "contestant": contestant, **blank}
                for contestant in [*list(best)[1:], "torch.compile"]
            ]
    return rows


def time_em_step(seconds: float) -> list[dict[str, object]]:
    """Rows of em_step's bandwidth beside a copy's, for states of 64 MB and more."""
    rows: list[dict[str, object]] = []
    for megabytes in (64, 256):
        base: dict[str, object] = {"device": "cuda", "state MB": megabytes}
        if not ON_GPU:
            for direction, size in (("forward", 16), ("backward", 18)):
                figures = dict.fromkeys(("GB/s", "copy GB/s", "share of copy"), UNMEASURED)
                rows.append({**base, "pass": direction, "bytes an element": size, **figures})
            continue
        rows += _bandwidth(base, megabytes * 2**20 // 4, seconds)
    return rows


def _bandwidth(base: dict[str, object], elements: int, seconds: float) -> list[dict[str, object]]:
    shape = (16, elements // 16)
    z, spare = (torch.randn(shape, device="cuda") for _ in range(2))
    parts = [
        torch.rand(shape, device="cuda").add_(0.1).bfloat16().requires_grad_() for _ in range(4)
    ]
    drift, g, control, width = parts
    key = (1, torch.arange(16, device="cuda"), torch.arange(16, device="cuda"))
    dt = torch.full((16,), 0.01, device="cuda")

    def forward() -> tuple[Tensor, Tensor]:
        return em_step(z, drift, g, dt, key, control, width)

    made, up = forward(), torch.randn(shape, device="cuda")
    ones = torch.ones(16, device="cuda")
    runs: dict[str, Callable[[], object]] = {
        "copy": lambda: spare.copy_(z),
        "forward": forward,
        "backward": lambda: torch.autograd.grad(made, parts, (up, ones), retain_graph=True),
    }
    best = race(runs, seconds)  # type: ignore[arg-type]
    copy = 8 * elements / best["copy"] / 1e9
    rows = []
    for direction, size in (("forward", 16), ("backward", 18)):
        speed = size * elements / best[direction] / 1e9
        figures = {"GB/s": f"{speed:.0f}", "copy GB/s": f"{copy:.0f}"}
        figures["share of copy"] = f"{speed / copy:.3f}"
        rows.append({**base, "pass": direction, "bytes an element": size, **figures})
    return rows


def measure_memory() -> list[dict[str, object]]:
    """Rows of peak memory against steps, each from a process of its own."""
    rows: list[dict[str, object]] = []
    for gradient in ("backprop", "checkpoint", "reversible", "em_trajectory"):
        for steps in (32, 128, 512):
            command = [sys.executable, __file__, "--memory-of", gradient, str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak = done.stdout.split()[-1]
            rows.append({"device": DEVICE, "gradient": gradient, "steps": steps, "peak MB": peak})
    return rows


def red(operators: tuple[str, ...]) -> list[str]:
    """The operators whose tests do not pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    paths = {name: ROOT / "tests/kernels" / f"test_{name}.py" for name in operators}
    return [
        name
        for name, path in paths.items()
        if subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True).returncode
    ]


def machine() -> str:
    """What the figures were measured on."""
    if ON_GPU:
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, 1 of {os.cpu_count()} cores"


def write(name: str, rows: list[dict[str, object]], folder: Path) -> None:
    """Rows with machine, versions and date, as `folder`/name.csv."""
    versions = {kit: importlib.metadata.version(kit) for kit in ("torch", "triton", "torchsde")}
    date = datetime.date.today().isoformat()
    load = f"{os.getloadavg()[0]:.1f}"
    about: dict[str, object] = {"date": date, "machine": machine(), "load": load, **versions}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        for row in rows:
            nowhere = (
                {"date": "", "machine": UNMEASURED, "load": ""}
                if UNMEASURED in row.values()
                else {}
            )
            writer.writerow({**row, **about, **nowhere})


def table(rows: list[dict[str, object]]) -> str:
    """Rows under one another in columns."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the fused operators.")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=20.0, help="a size")
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(f"{memory_of(arguments.memory_of[0], int(arguments.memory_of[1])):.1f}")
        return 0
    failed = red(OPERATORS)
    for name in failed:
        print(f"{name} is not timed: its tests are red (pytest tests/kernels/test_{name}.py)")
    compiled = arguments.compile or ON_GPU
    jobs: dict[str, Callable[[], list[dict[str, object]]]] = {}
    if not {"philox", "em_step"} & set(failed):
        jobs["em_step"] = lambda: time_em_step(arguments.seconds / 4)
    if not {"philox", "em_trajectory"} & set(failed):
        jobs["memory"] = measure_memory
        jobs["training_step"] = lambda: time_training(arguments.sizes, arguments.seconds, compiled)
    for name, job in jobs.items():
        rows = job()
        write(name, rows, arguments.output)
        print(f"\n{name}\n{table(rows)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
