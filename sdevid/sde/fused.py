"""Solves a vector latent's chain as one operator, where drift and control are SiLU networks."""

from __future__ import annotations

import torch
from sdevid_kernels import runtime
from sdevid_kernels.em_trajectory import em_trajectory, why_not
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde.equation import check_fits
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import EULER, Path, Problem, check_path
from sdevid.transfer import to_device

NAME = "fused"


def unsupported(problem: Problem) -> str | None:
    """Say why this solver cannot take `problem`, or None if it can."""
    start, silu = problem.start, problem.silu
    if problem.scheme != EULER:
        return f"the scheme is {problem.scheme}"
    if problem.order == 2:
        return "the state is of second order"
    if start.dim() != 2:
        return "the state is a map; the fused chain takes vectors"
    if problem.kernels == "reference":
        return "kernels is reference"
    if problem.gradient != "backprop":
        return f"gradient is {problem.gradient}"
    if isinstance(silu, str):
        return silu
    if start.is_cuda:
        dt = torch.empty(problem.steps, len(start), device="meta")
        return why_not(start, silu.drift, silu.posterior, dt, start)
    return None


def solve(problem: Problem) -> Path:
    """Solve the chain: one launch each way on CUDA, one autograd function on a CPU.

    Values are those of `stepwise` up to rounding; a path that diverges comes back in NaNs. Raises
    UserError where a tensor, time or setting does not fit, or there are no SiLU networks.
    """
    start, ticks, noise, silu = problem.start, problem.ticks, problem.noise, problem.silu
    if isinstance(silu, str):
        raise UserError(f"the fused solver does not take this problem: {silu}")
    check_path(start, ticks, noise)
    if isinstance(silu.diffusion, Tensor):
        check_fits("diffusion", silu.diffusion, start)
    spans = to_device(types.units(ticks.diff(dim=1)).t().contiguous(), start.device)
    dt = spans.to(start.dtype)
    draws = _draws(start, ticks, noise, problem.kernels)
    try:
        trajectory = em_trajectory(
            start,
            silu.drift,
            silu.drift_shift,
            silu.diffusion,
            silu.posterior,
            dt,
            draws,
            problem.saved,
            setting=problem.kernels,
            finite=False,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Path(
        trajectory.states.transpose(0, 1),
        trajectory.energy + trajectory.width_kl,
        trajectory.energy,
    )


def _draws(
    start: Tensor, ticks: Tensor, noise: Brownian | Tensor, kernels: runtime.Setting
) -> Tensor | tuple[int, Tensor, Tensor]:
    if not isinstance(noise, Brownian):
        return noise.transpose(0, 1)
    cells = noise.whole_cells(ticks) if start.is_cuda and kernels != "reference" else None
    if cells is None:
        return noise.increments(ticks).transpose(0, 1).to(start.dtype)
    device = start.device
    return noise.seed, noise.serial.to(device), to_device(cells.t().contiguous(), device)
