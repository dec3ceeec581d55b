"""A training step of a config, solved as one operator and step by step, in one process.

    python benchmarks/training_step.py [--config configs/demo.yaml] [--seconds 20]

One loss and all its gradients on random clips; the two ways take turns, and a figure is the least
of the thread's own times. Results go to benchmarks/results/objective_step.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import random
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from sdevid import objectives
from sdevid.config import load
from sdevid.evaluate import provenance

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"one operator": "auto", "step by step": "reference"}


def build(path: Path, kernels: str) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    """Return the objective and clips for it, the same for each setting of the kernels."""
    torch.manual_seed(0)
    config = load(path, [f"sde.kernels={kernels}"])
    side, frames, count = config.frame_size, config.sequence_length, config.batch_size
    shape = (count, frames, side, side, config.channels)
    video = torch.randint(0, 256, shape, dtype=torch.uint8)
    ticks = config.frame_ticks(frames).expand(count, -1)
    return objectives.build(config), (video, ticks, torch.arange(count))


def step(objective: nn.Module, clips: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return seconds of the thread for a loss and its gradients."""
    began = time.thread_time()
    objective.zero_grad()
    objective(*clips, kl_weight=1.0)["loss"].backward()
    return time.thread_time() - began


def race(path: Path, seconds: float) -> dict[str, float]:
    """Return the least time of each way, in seconds."""
    contestants = {way: build(path, kernels) for way, kernels in WAYS.items()}
    best = dict.fromkeys(contestants, float("inf"))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for way in random.sample(list(contestants), len(contestants)):
            best[way] = min(best[way], step(*contestants[way]))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs/demo.yaml")
    parser.add_argument("--seconds", type=float, default=20.0)
    output = ROOT / "benchmarks/results/objective_step.csv"
    parser.add_argument("--output", type=Path, default=output)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best = race(options.config, options.seconds)
    common = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": provenance.one_core(),
        "load": round(os.getloadavg()[0], 1),
        "torch": importlib.metadata.version("torch"),
    }
    rows = [
        {
            "config": options.config.name,
            "solve": way,
            "milliseconds": f"{1e3 * taken:.1f}",
            "of step by step": f"{taken / best['step by step']:.2f}",
            **common,
        }
        for way, taken in best.items()
    ]
    with options.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
