"""A vector latent's chain whose drift and control are SiLU networks, solved as one operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from sdevid_kernels import runtime
from sdevid_kernels.em_trajectory import Draw, em_trajectory, why_not
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import openblas
from sdevid.sde.equation import check_fits
from sdevid.sde.integrate import Path, check_path
from sdevid.sde.noise import Brownian

__all__ = ["Diffusion", "Network", "Posterior", "describe", "solve"]


def solve(
    start: Float[Tensor, "batch d"],
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian | Float[Tensor, "batch steps d"],
    drift: Network,
    drift_shift: Float[Tensor, "batch hidden"],
    diffusion: Float[Tensor, "batch d"] | Diffusion,
    posterior: Posterior | None = None,
    kernels: runtime.Setting = "auto",
    saved: Sequence[int] | None = None,
) -> Path:
    """`integrate.chain` for h = drift(z, drift_shift), and u and r as `posterior` reads them.

    States come back at the grid points `saved`, all by default. One launch each way on CUDA where
    the networks fit, a backward pass by hand on a CPU; `kernels` "reference" is autograd. Numbers
    are the same up to rounding; a path that is lost comes back in NaNs, as from `chain`. Raises
    UserError where the state is no vector, or a tensor, time or setting does not fit.
    """
    if start.dim() != 2:
        raise UserError(
            f"start has shape {tuple(start.shape)}, but a trajectory takes vectors (batch, d); "
            "use integrate.chain for maps"
        )
    check_path(start, ticks, noise)
    if isinstance(diffusion, Tensor):
        check_fits("diffusion", diffusion, start)
    dt = types.seconds(ticks.diff(dim=1)).to(start.device, start.dtype).t().contiguous()
    draws = _draws(start, ticks, noise, kernels)
    if start.device.type == "cpu":
        openblas.offer()
    try:
        given = (start, drift, drift_shift, diffusion, posterior, dt, draws, saved)
        made = em_trajectory(*given, setting=kernels, finite=False)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Path(made.states.transpose(0, 1), made.energy + made.width_kl, made.energy)


def describe(
    start: Tensor,
    drift: Network,
    posterior: Posterior | None,
    steps: int,
) -> str:
    """One line for the start of a run: how `solve` will run, and why."""
    dt = torch.empty(steps, len(start), device="meta")
    refused = why_not(start, drift, posterior, dt, start)
    if start.is_cuda and refused is None:
        return "SDE solve: one fused launch each way"
    if start.is_cuda:
        return f"SDE solve: a launch a step, for {refused}"
    return "SDE solve: backward pass by hand (CPU)"


def _draws(
    start: Tensor, ticks: Tensor, noise: Brownian | Tensor, kernels: runtime.Setting
) -> Tensor | tuple[int, Tensor, Tensor] | Draw:
    if not isinstance(noise, Brownian):
        return noise.transpose(0, 1)
    path = noise
    if not start.is_cuda:
        return lambda first, last: _moves(path, ticks[:, first : last + 1], start)
    cells = noise.whole_cells(ticks) if kernels != "reference" else None
    if cells is None:
        return _moves(noise, ticks, start)
    device = start.device
    return noise.seed, noise.serial.to(device), cells.t().contiguous().to(device)


def _moves(noise: Brownian, ticks: Tensor, start: Tensor) -> Tensor:
    return noise.increments(ticks).transpose(0, 1).to(start.dtype)
