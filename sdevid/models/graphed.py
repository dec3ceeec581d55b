"""The backbone's solve in training, as one CUDA graph: for convolutions, which no kernel takes."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary, proxy

from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid import types
from sdevid.config import Config
from sdevid.models.backbone import Conditions, Control, Prior, State
from sdevid.sde.capture import Solve, Solved, captured
from sdevid.sde.integrate import Coefficients, Path, Step, check_path
from sdevid.sde.noise import Brownian

_Key = tuple[object, ...]
_GRAPHS: WeakKeyDictionary[Prior, dict[_Key, Callable[..., Solved]]] = WeakKeyDictionary()


def takes(config: Config) -> bool:
    """Whether training solves by a graph.

    Not where ZeRO 3 gathers weights as their own modules are called, nor where frames ahead make
    the drift depend on time, nor where activations are made again in the backward pass, nor for a
    state of second order.
    """
    sde = config.sde
    known = config.zero_stage < 3 and not config.observation.ahead and not sde.checkpoint
    return sde.capture and sde.latent == "map" and sde.order == 1 and known


def solve(
    start: State,
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian | Float[Tensor, "batch steps *latent"],
    prior: tuple[Prior, Conditions],
    control: tuple[Control, tuple[Tensor, ...]],
) -> Path:
    """The controlled path at every grid point; it holds until the next is solved.

    A graph is captured for each shape of batch at its first step; on a CPU the same is solved
    without one. Raises UserError where shapes, times or devices do not fit.
    """
    check_path(start, ticks, noise)
    dt = types.seconds(ticks.diff(dim=1)).to(start.device, start.dtype)
    dw = noise.increments(ticks) if isinstance(noise, Brownian) else noise
    conditions = [part for part in prior[1] if part is not None]
    given = (start, dt, dw.to(start.dtype), *conditions, *control[1])
    graphs = _GRAPHS.setdefault(prior[0], {})
    key = (len(conditions), *((x.shape, x.dtype, x.requires_grad, x.device) for x in given))
    if key not in graphs:
        graphs[key] = captured(_backbone(prior[0], control[0], len(conditions)), given)
    return Path(*graphs[key](*given))


def _backbone(prior: Prior, control: Control, many: int) -> Solve:
    prior_, control_ = proxy(prior), proxy(control)  # else no entry of _GRAPHS would ever go

    def coefficients_of(*parts: Tensor) -> Coefficients:
        slope = parts[2] if many > 2 else None
        conditions, controls = Conditions(parts[0], parts[1], slope), parts[many:]

        def coefficients(z: Tensor, step: int) -> Step:
            drift, diffusion = prior_(z, conditions)
            return Step(drift, diffusion, *control_(z, controls[step], drift, diffusion))

        return coefficients

    return Solve(nn.ModuleList([prior.drift, control.network]), coefficients_of)
