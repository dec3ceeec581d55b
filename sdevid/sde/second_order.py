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
from jaxtyping import Float
from torch import Tensor

from sdevid.errors import UserError


def halves(z: Float[Tensor, "batch both *cells"]) -> tuple[Tensor, Tensor]:
    """Split (q, v) into q and v. Raises UserError where the state has no two halves."""
    if z.shape[1] % 2:
        raise UserError(
            f"a state of shape {tuple(z.shape)} is no (q, v), which takes an even second axis: "
            "positions, then as many velocities"
        )
    q, v = z.chunk(2, dim=1)
    return q, v


def prior_step(z: Tensor, drift: Tensor, diffusion: Tensor, dt: float, dw: Tensor) -> Tensor:
    """Take one step of `dt` units of time without control: (q', v'), like `z`."""
    q, v = halves(z)
    v = v + drift * dt + diffusion * dw
    return torch.cat([q + v * dt, v], dim=1)


def joined(q: Tensor, v: Tensor, dt: Tensor) -> Tensor:
    """Join (q', v') from q and the new v; `dt` broadcasts over them."""
    return torch.cat([torch.addcmul(q, v, dt), v], dim=1)
