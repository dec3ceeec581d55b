"""The chain of z = (q, v): dq = v dt, dv = (h + g u) dt + r g dW.

Noise and control act on v alone. A step moves v by Euler-Maruyama and then q with the new v,

    v' = v + (h(q, v) + g u) d + r g dW,    q' = q + v' d,

which is of strong order 1 where g is constant, else 1/2, as Euler-Maruyama is. That q' takes v'
keeps an oscillator's energy where explicit Euler pumps it up (symplectic Euler: Hairer, Lubich &
Wanner 2006, section I.1.2), and lets a step's control reach the position at that step's end. Given
q and v, q' is the same function of v' in posterior and prior, so the KL of a step is v's alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from sdevid_kernels import runtime
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import integrate
from sdevid.sde.integrate import Coefficients, Path, Step
from sdevid.sde.noise import Brownian


def halves(z: Float[Tensor, "batch both *cells"]) -> tuple[Tensor, Tensor]:
    """q and v of (q, v). Raises UserError where the state has no two halves."""
    if z.shape[1] % 2:
        raise UserError(
            f"a state of shape {tuple(z.shape)} is no (q, v), which takes an even second axis: "
            "positions, then as many velocities"
        )
    q, v = z.chunk(2, dim=1)
    return q, v


def moved(z: Tensor, drift: Tensor, diffusion: Tensor, dt: float, dw: Tensor) -> Tensor:
    """One step of `dt` seconds without control."""
    q, v = halves(z)
    v = v + drift * dt + diffusion * dw
    return torch.cat([q + v * dt, v], dim=1)


def chain(
    start: Float[Tensor, "batch both *cells"],
    ticks: Int64[Tensor, "batch points"],
    noise: Float[Tensor, "batch steps half *cells"] | Brownian,
    coefficients: Coefficients,
    kernels: runtime.Setting = "auto",
) -> Path:
    """`integrate.chain` for a state (q, v): noise and coefficients are those of v, like v.

    `coefficients(z, k)` is told the whole state. It is the chain of v, whose coefficients look at
    its sum q too; so whatever steps that chain, a fused kernel or not, steps this one.
    """
    q, v = halves(start)
    spans = types.seconds(ticks.diff(dim=1)).to(start.device, start.dtype)
    spans = spans.view(*spans.shape, *[1] * (start.dim() - 1))
    places: list[Tensor] = []

    def of_velocity(v: Tensor, k: int) -> Step:
        places.append(q if k == 0 else torch.addcmul(places[-1], v, spans[:, k - 1]))
        return coefficients(torch.cat([places[-1], v], dim=1), k)

    path = integrate.chain(v.contiguous(), ticks, noise, of_velocity, kernels)
    last = path.states[:, -1]
    places.append(torch.addcmul(places[-1], last, spans[:, -1]) if places else q)
    return path._replace(states=torch.cat([torch.stack(places, 1), path.states], dim=2))
