"""Follmer's bridge from one state to the law of the next (Chen et al. 2024).

With s in [0, 1], I_s = (1 - s) x0 + s^2 x1 + sigma(s) W_s and sigma(s) = eps (1 - s), the SDE
dX = b(X, s, x0) ds + sigma(s) dB, b = E[R_s | I_s], R_s = d(I_s)/ds along the interpolant, starts
at x0 and ends in the law of x1 given x0. Here W_s is sqrt(s) xi with xi standard normal.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

Diffusion = Literal["interpolant", "follmer"]


class Bridge(NamedTuple):
    """The interpolant at some s and what its drift is regressed on."""

    state: Tensor  # I_s
    target: Tensor  # R_s


def interpolate(x0: Tensor, x1: Tensor, xi: Tensor, s: Tensor, eps: Tensor) -> Bridge:
    """Compute I_s and R_s = -x0 + 2 s x1 - eps sqrt(s) xi, for standard normal `xi`."""
    root = s.sqrt()
    state = (1 - s) * x0 + s.square() * x1 + eps * (1 - s) * root * xi
    return Bridge(state, -x0 + 2 * s * x1 - eps * root * xi)


def score(x: Tensor, s: Tensor, x0: Tensor, drift: Tensor, eps: Tensor) -> Tensor:
    """Compute the score of I_s given x0, at `x`, from the bridge's drift b there; 0 < s < 1.

    E[W_s | I_s] follows from x = (1 - s) x0 + s^2 E[x1] + sigma E[W_s] and b = -x0 + 2 s E[x1] -
    eps E[W_s]; the score is -E[W_s] / (s sigma).
    """
    noise = (2 * (x - (1 - s) * x0) - s * (drift + x0)) / (eps * (2 - s))
    return -noise / (eps * s * (1 - s))


def rates(
    x: Tensor, s: Tensor, x0: Tensor, drift: Tensor, eps: Tensor, diffusion: Diffusion
) -> tuple[Tensor, Tensor]:
    """Compute drift and diffusion at `x` of a bridge with the same law at every s.

    "interpolant": b and sigma as learnt. "follmer": g^2 = eps^2 (3 - s) (1 - s), Follmer's own,
    with b + 1/2 (g^2 - sigma^2) grad log rho; it takes s above 0, where that score exists.
    """
    sigma = eps * (1 - s)
    if diffusion == "interpolant":
        return drift, sigma
    added = eps.square() * (1 - s)  # 1/2 (g^2 - sigma^2)
    return drift + added * score(x, s, x0, drift, eps), eps * ((3 - s) * (1 - s)).sqrt()
