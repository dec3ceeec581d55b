"""Noise that particles share by nearness, and the exact posterior of one step of its chain.

K particles move along each axis by z' = z + h d + g sqrt(d) f, with f ~ N(0, R) over the particles
and R_kj = exp(-|p_k - p_j|^2 / 2 l^2) by their positions p at birth: what begins together stays
together. With L L^T = R the prior draws f = L xi. The posterior is that Gaussian given, for each
particle, a pseudo-observation y of its own f of precision Lam >= 0:

    P = I + L^T Lam L = C C^T     e = P^-1 L^T Lam y     f = L (e + C^-T xi)
    KL = 1/2 (|e|^2 + tr P^-1 - K + log det P)

One direction may so be sure while the others stay as free as the prior. A particle of precision 0
costs nothing. R = I is the diagonal chain of `path_kl` with r^2 = 1 / (1 + Lam).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.errors import UserError

JITTER = 1e-3  # share of each particle's variance that is its own, so that R has a root

Root = Float[Tensor, "*batch particles particles"]
PerAxis = Float[Tensor, "*batch particles axes"]


def root(positions: Float[Tensor, "*batch particles 2"], length: Float[Tensor, "*one"]) -> Root:
    """Factor R = L L^T: lower triangular L for particles born at `positions`.

    `length` is l, in the unit of `positions`: l -> 0 gives independent particles, a large l one
    common noise. A share `JITTER` of the variance is each particle's own; the diagonal of R is 1.
    The share is small because own noise brings back the bias that sharing it cures: 1 % of it costs
    8 % of g^2 where two particles draw one thing seen with error variance 0.01 g^2.
    """
    apart = (positions[..., :, None, :] - positions[..., None, :, :]).square().sum(-1)
    shared = (-0.5 * apart / length.square()).exp()
    own = torch.eye(shared.shape[-1], dtype=shared.dtype, device=shared.device)
    correlation = (1 - JITTER) * shared + JITTER * own
    lower: Tensor = torch.linalg.cholesky(correlation.to(_wide(correlation)))
    return lower


def independent(positions: Float[Tensor, "*batch particles 2"]) -> Root:
    """Build L = I: each particle's noise is its own."""
    own = torch.eye(positions.shape[-2], dtype=_wide(positions), device=positions.device)
    return own.expand(*positions.shape[:-1], positions.shape[-2])


class NoisePosterior(NamedTuple):
    """The noise f of one step given the pseudo-observations; see `posterior`.

    Axes that share a precision share its factor: there are `factors` of them, 1 or one an axis.
    """

    root: Root
    mean: PerAxis  # e, of the white noise
    factor: Float[Tensor, "*batch factors particles particles"]  # C, lower triangular
    kl: Float[Tensor, " *batch"]  # nats, from the prior

    def draw(self, xi: PerAxis) -> PerAxis:
        """Draw f = L (e + C^-T xi) from standard normal `xi`, in units of g sqrt(d)."""
        upper = self.factor.transpose(-1, -2)
        columns = _by_factor(xi.to(upper.dtype), upper.shape[-3])
        spread = torch.linalg.solve_triangular(upper, columns, upper=True)
        draws: Tensor = self.root @ (self.mean + _by_axis(spread))
        return draws

    def kl_from(self, prior_mean: PerAxis | None) -> Float[Tensor, " *batch"]:
        """Compute the KL in nats from a prior of f of this mean, in units of g sqrt(d); None: 0."""
        if prior_mean is None:
            return self.kl
        wide = prior_mean.to(self.root.dtype)
        apart = self.mean - torch.linalg.solve_triangular(self.root, wide, upper=False)
        kl: Tensor = self.kl + 0.5 * (apart.square() - self.mean.square()).sum((-1, -2))
        return kl


def prior_draw(root: Root, xi: PerAxis) -> PerAxis:
    """Draw f = L xi from standard normal `xi`, in units of g sqrt(d)."""
    return root @ xi.to(root.dtype)


def posterior(
    root: Root,
    observed: PerAxis,
    precision: Float[Tensor, "*batch particles factors"],
) -> NoisePosterior:
    """Condition the step's noise on `observed`: each particle's own f, seen with `precision` >= 0.

    `observed` is y in units of g sqrt(d), `precision` is Lam in units of 1 over its square, one an
    axis or one for all, which takes one factorisation. The sums are float32 or wider. Raises
    UserError where shapes do not fit.
    """
    _check(root, observed, precision)
    factors, axes = precision.shape[-1], observed.shape[-1]
    lam = precision.to(root.dtype).transpose(-1, -2).unsqueeze(-1)  # (*batch, factors, K, 1)
    y = _by_factor(observed.to(root.dtype), factors)
    each = root.unsqueeze(-3)
    own = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    factor = torch.linalg.cholesky(own + each.transpose(-1, -2) @ (lam * each))
    mean = _by_axis(torch.cholesky_solve(each.transpose(-1, -2) @ (lam * y), factor))
    half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    inverse = torch.linalg.solve_triangular(factor, own.expand_as(factor), upper=False)
    trace = inverse.square().sum((-1, -2)) - len(own)  # tr P^-1 = |C^-1|^2
    width = (0.5 * trace + half_log_det).sum(-1) * (axes // factors)
    return NoisePosterior(root, mean, factor, 0.5 * mean.square().sum((-1, -2)) + width)


def own_posterior(observed: Tensor, precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean, width r and KL in nats, by component, of noise that nothing shares.

    The posterior of a standard normal seen as `observed` with `precision`: r^2 = 1 / (1 + Lam).
    """
    variance = 1 / (1 + precision)
    mean = (1 - variance) * observed
    kl = 0.5 * (mean.square() + variance - 1 - variance.log())
    return mean, variance.sqrt(), kl


def _by_factor(values: PerAxis, factors: int) -> Float[Tensor, "*batch factors particles columns"]:
    """Group the axes that share a factor, as its right-hand sides."""
    return torch.unflatten(values, -1, (factors, -1)).movedim(-2, -3)


def _by_axis(columns: Float[Tensor, "*batch factors particles columns"]) -> PerAxis:
    return columns.movedim(-3, -2).flatten(-2)


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _check(root: Tensor, observed: Tensor, precision: Tensor) -> None:
    particles, axes = root.shape[-1], observed.shape[-1]
    fits = precision.shape[-1] in (1, axes) and precision.shape[:-1] == observed.shape[:-1]
    if not fits or observed.shape[-2] != particles:
        raise UserError(
            f"observed has shape {tuple(observed.shape)} and precision {tuple(precision.shape)}, "
            f"but a root of shape {tuple(root.shape)} needs (..., {particles}, {axes}) of the "
            f"first and (..., {particles}, {axes}) or (..., {particles}, 1) of the second"
        )
