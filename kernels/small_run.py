"""Runs every operator once, forward and backward, on small tensors.

What compute-sanitizer watches (`compute-sanitizer --tool memcheck python kernels/small_run.py`):
accesses out of bounds, and races, show at small sizes that fill no block. Without a GPU it runs
under Triton's interpreter.
"""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")  # or no access is out of bounds

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported

from sdevid_kernels import philox
from sdevid_kernels.em_step import em_step
from sdevid_kernels.em_trajectory import em_trajectory
from sdevid_kernels.em_trajectory.reference import Network, Posterior, Reading
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def leaf(*shape: int) -> Tensor:
    """Draw a tensor of this shape in [0.1, 1.1) that requires a gradient."""
    return torch.rand(shape, device=DEVICE).add_(0.1).requires_grad_()


def pull_back(*values: Tensor) -> None:
    """Run the backward pass from the sum of squares of all `values`."""
    torch.stack([value.square().sum() for value in values]).sum().backward()


def steps() -> None:
    """Run the operators of one step, on a state that fills no block."""
    serial, cell = (torch.arange(3, device=DEVICE) for _ in range(2))
    key, dt = (1, serial, cell), torch.full((3,), 0.1, device=DEVICE)
    philox.normals(1, serial, cell[:, None], 37, setting="triton")
    draws = [philox.Draw(37, 0, True), philox.Draw(5, 3, False)]
    philox.together(1, serial, draws, setting="triton")
    z, drift, g, u, r = (leaf(3, 37) for _ in range(5))
    pull_back(*em_step(z, drift, g, dt, key, u, r, setting="triton"))


def trajectory() -> None:
    """Run a chain of two steps, whose rows and components fill no block."""
    rows, size, hidden = 5, 12, 40
    drift = Network(leaf(hidden, size), (), (leaf(size, hidden), leaf(size)))
    control = Network(leaf(hidden, size), (), (leaf(2 * size, hidden), leaf(2 * size)))
    posterior = Posterior(control, leaf(2, rows, hidden), Reading(30.0, width=True))
    key = (1, torch.arange(rows, device=DEVICE), torch.arange(2, device=DEVICE).expand(rows, 2).t())
    dt = torch.full((2, rows), 0.1, device=DEVICE)
    arguments = (leaf(rows, size), drift, leaf(rows, hidden), leaf(rows, size), posterior, dt, key)
    pull_back(*em_trajectory(*arguments, setting="triton"))


if __name__ == "__main__":
    steps()
    trajectory()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    print(f"every operator ran on {DEVICE}")
