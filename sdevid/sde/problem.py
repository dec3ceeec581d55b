"""What a solver is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float, Int64
from sdevid_kernels import runtime
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Reading
from torch import Tensor

from sdevid.errors import UserError
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian

__all__ = [
    "EULER",
    "Coefficients",
    "Diffusion",
    "Gradient",
    "Network",
    "Order",
    "Path",
    "Posterior",
    "Problem",
    "Reading",
    "SiluForm",
    "Step",
    "check_path",
    "check_saved",
]

Gradient = Literal["backprop", "checkpoint", "reversible"]
Order = Literal[1, 2]
EULER = "euler_maruyama"


class Step(NamedTuple):
    """Coefficients at one grid point, each (batch, *shape) or one that broadcasts to it."""

    drift: Tensor  # of the prior, latent units per unit of time
    diffusion: Tensor  # g, latent units per sqrt(unit of time)
    control: Tensor | None = None  # u, per sqrt(unit of time); None: the prior itself
    width: Tensor | None = None  # r in (0, 1]; None: 1, the continuous bound


class Path(NamedTuple):
    """A solved path."""

    states: Float[Tensor, "batch points *shape"]  # at the saved grid points
    kl: Float[Tensor, " batch"]  # of the path, nats
    control_energy: Float[Tensor, " batch"]  # 1/2 sum |u|^2 dt, the control's part of `kl`, nats


Coefficients = Callable[[Tensor, int], Step]  # (z, k) to those of step k


class SiluForm(NamedTuple):
    """Drift, diffusion and control as weights of SiLU networks over a vector."""

    drift: Network
    drift_shift: Float[Tensor, "batch hidden"]
    diffusion: Float[Tensor, "batch d"] | Diffusion
    posterior: Posterior | None = None


@dataclass(frozen=True)
class Problem:
    """A path to solve: from `start` along `ticks`, driven by `noise`, saved at some grid points.

    `coefficients` are those of the Euler-Maruyama chain z' = z + (h + g u) d + r g dW. `silu` and
    `fields` are the same coefficients in the forms that other solvers take, or the reason why there
    is none. `scheme` is one of `solvers.SOLVERS` or torchsde/METHOD. With `order`
    2 the state is (q, v), and noise and coefficients are those of v. `tolerance` makes the steps of
    a torchsde method adaptive.
    """

    start: Float[Tensor, "batch *shape"]
    ticks: Int64[Tensor, "batch points"]
    noise: Brownian | Float[Tensor, "batch steps *noise"]  # the path, or its increments dW
    coefficients: Coefficients
    saved: Sequence[int] | None = None  # grid points, rising; None: all
    scheme: str = EULER
    gradient: Gradient = "backprop"
    kernels: runtime.Setting = "auto"
    order: Order = 1
    tolerance: float | None = None
    silu: SiluForm | str = "its coefficients are functions, not layers of SiLU"
    fields: SDE | str = "its coefficients are given for a step, not for a time"

    @property
    def steps(self) -> int:
        """Steps of the grid."""
        return self.ticks.shape[1] - 1


def check_path(start: Tensor, ticks: Tensor, noise: Tensor | Brownian | None) -> None:
    """Raise UserError where times or noise do not fit `start`, or its type is too narrow.

    `start` is what the noise acts on: of a state of second order, its velocities.
    """
    steps = ticks.shape[-1] - 1
    if ticks.dim() != 2 or steps < 0 or len(ticks) != len(start):
        raise UserError(
            f"ticks have shape {tuple(ticks.shape)}, but a start of shape {tuple(start.shape)} "
            f"needs ({len(start)}, points) with at least one point"
        )
    if not start.dtype.is_floating_point or start.dtype.itemsize < 4:
        raise UserError(
            f"start is {start.dtype}, but a state in 16 bits has the wrong law; "
            "convert it to float32 (networks may stay in bf16)"
        )
    expected = (len(start), steps, *start.shape[1:])
    if isinstance(noise, Brownian):
        has = (len(noise.serial), steps, *noise.shape)
        device = noise.device
    elif noise is not None:
        has, device = tuple(noise.shape), noise.device
    else:
        has, device = expected, start.device
    if has != expected:
        raise UserError(
            f"noise has shape {has}, but {steps} steps from a start of shape "
            f"{tuple(start.shape)} need {expected}"
        )
    if device != start.device:
        raise UserError(f"noise is on {device} but start is on {start.device}; move one of them")
    if ticks.device.type == "cpu":  # those on a device were looked at when their rhythm was read
        _check_times(ticks)


def check_saved(saved: Sequence[int] | None, points: int) -> list[int]:
    """Check and return the saved grid points; UserError where they are no rising grid points."""
    saves = list(range(points)) if saved is None else list(saved)
    if not saves or saves != sorted(saves) or saves[0] < 0 or saves[-1] >= points:
        raise UserError(
            f"saved is {saves}, but it must name grid points 0 to {points - 1} in rising order"
        )
    return saves


def _check_times(ticks: Tensor) -> None:
    if ticks.shape[1] > 1 and int(ticks.diff(dim=1).min()) < 0:
        raise UserError(
            f"ticks fall by {-int(ticks.diff(dim=1).min())} somewhere, but time must not run "
            "backwards; sort the times of each clip"
        )
