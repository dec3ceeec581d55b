"""Attention on a CPU by PyTorch's own choice of kernel and by its MATH backend, forward and back.

    python benchmarks/attention.py [--seconds 3]

Shapes are the temporal encoder's of `configs/signs.yaml`: 4 clips of 64 cells, 4 heads of 12. The
two take turns, and a figure is the least of the thread's own times. Results go to
benchmarks/results/attention.csv.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import random
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdevid.evaluate import provenance

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (5, 9, 17, 33, 65, 129)
ROWS, HEADS, WIDTH = 256, 4, 12
WAYS = ("default", "math")


def chosen(backend: str) -> AbstractContextManager[None]:
    """Return the context in which attention runs by `backend`."""
    return sdpa_kernel(SDPBackend.MATH) if backend == "math" else nullcontext()


def step(inputs: list[Tensor], mask: Tensor, backend: str) -> float:
    """Return seconds of the thread for attention and its gradients."""
    for x in inputs:
        x.grad = None
    began = time.thread_time()
    with chosen(backend):
        functional.scaled_dot_product_attention(*inputs, mask).sum().backward()
    return time.thread_time() - began


def race(length: int, seconds: float) -> dict[str, float]:
    """Return the least time of each backend at a length, in seconds."""
    shape = (ROWS, length, HEADS, WIDTH)
    inputs = [torch.randn(shape).transpose(1, 2).detach().requires_grad_() for _ in range(3)]
    mask = (torch.arange(length) < torch.randint(1, length + 1, (ROWS, 1)))[:, None, None]
    best = dict.fromkeys(WAYS, float("inf"))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for backend in random.sample(WAYS, len(WAYS)):
            best[backend] = min(best[backend], step(inputs, mask, backend))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each length")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/attention.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    common = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": provenance.one_core(),
        "load": round(os.getloadavg()[0], 1),
        "torch": importlib.metadata.version("torch"),
    }
    rows = []
    for length in LENGTHS:
        best = race(length, options.seconds)
        times = {f"{way} ms": f"{1e3 * best[way]:.2f}" for way in WAYS}
        ratio = f"{best['default'] / best['math']:.2f}"
        rows.append({"tokens": length} | times | {"default over math": ratio} | common)
        print(rows[-1], flush=True)
    with options.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
