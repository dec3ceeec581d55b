"""Times a training step of this tree and of another one, interleaved, in processes of their own.

    python kernels/bench_against.py OTHER_TREE [--sizes small map medium] [--rounds 40]

A round asks each contestant for one step, in random order; a figure is the least of the steps'
thread times. Results go to benchmarks/results/against.csv with machine, versions and date.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"other": "ours", "this": "ours", "autograd": "eager"}  # contestant: method of a Step


def serve(size: str, way: str) -> None:
    """Answer each line of input with the thread seconds that one step took."""
    import torch
    from bench_cases import SIZES, Step

    torch.set_num_threads(1)
    run = getattr(Step(SIZES[size]), way)
    for _ in range(3):
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.thread_time()
        run()
        print(time.thread_time() - began, flush=True)


def start(tree: Path, size: str, way: str) -> subprocess.Popen[str]:
    """Start a process that serves steps of `tree`."""
    paths = os.pathsep.join(map(str, (tree, tree / "kernels")))
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve", size, way]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    _ask(process, None)
    return process


def race(other: Path, size: str, rounds: int) -> dict[str, float]:
    """Time the contestants' steps in random order; return the least seconds of each."""
    running = {
        name: start(other if name == "other" else ROOT, size, way) for name, way in WAYS.items()
    }
    best = dict.fromkeys(running, float("inf"))
    for _ in range(rounds):
        for name in random.sample(list(running), len(running)):
            best[name] = min(best[name], float(_ask(running[name], "step\n")))
    for process in running.values():
        process.communicate()
    return best


def _ask(process: subprocess.Popen[str], question: str | None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if question is not None:
        process.stdin.write(question)
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"a contestant ended with {process.wait()}")
    return answer


def main() -> None:
    """Race this tree's training step against another's; write and print the table."""
    from bench import table, write

    parser = argparse.ArgumentParser(description="Time this tree's training step beside another's.")
    parser.add_argument("other", type=Path, help="a checkout of another commit")
    parser.add_argument("--sizes", nargs="+", default=["small", "map", "medium"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for size in arguments.sizes:
        best = race(arguments.other.resolve(), size, arguments.rounds)
        for name, seconds in best.items():
            times = {"milliseconds": f"{1e3 * seconds:.3f}"}
            times["ratio to other"] = f"{seconds / best['other']:.3f}"
            rows.append({"size": size, "contestant": name, **times})
    write("against", rows, arguments.output)
    print(table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
