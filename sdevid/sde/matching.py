"""A posterior chain from its marginals, and its exact KL from the prior's chain: simulates nothing.

q(z_k) = N(m_k, s_k^2) at the grid points, each component by itself, and q is Markov with lag-one
correlation rho_k. Where the prior steps by N(z + h d, n), n = g^2 d, a posterior step is

    z_k = m_k + s_k eps,    z_{k+1} ~ N(m_{k+1} + rho s_{k+1} eps, (1 - rho^2) s_{k+1}^2)

and its KL is that of two Gaussians. With A the slope of h, `correlation` gives the rho that
minimises it where h is linear and g constant, the smoother's own: rho / (1 - rho^2) = alpha,
alpha = (1 + A d) s s' / n. Any rho that does not depend on z leaves the marginals as they are, and
the bound a bound. As d -> 0 the KL is the integrand of Bartosh et al. (2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from sdevid_kernels.em_step.reference import control_energy, width_kl
from torch import Tensor


class Marginals(NamedTuple):
    """q(z_k) = N(mean, scale^2) along each clip."""

    mean: Float[Tensor, "batch points *shape"]
    scale: Float[Tensor, "batch points *shape"]

    def steps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Split into m and s before each step, and m and s after it."""
        return self.mean[:, :-1], self.scale[:, :-1], self.mean[:, 1:], self.scale[:, 1:]


def correlation(
    marginals: Marginals,
    diffusion: Float[Tensor, "batch steps *shape"],
    dt: Float[Tensor, "batch steps *one"],
    slope: Float[Tensor, "batch steps *shape"] | float = 0.0,
) -> Float[Tensor, "batch steps *shape"]:
    """Compute each step's correlation rho = 2 alpha / (1 + sqrt(1 + 4 alpha^2)).

    There alpha = (1 + A d) s s' / (g^2 d). `diffusion` and `slope` are g and A at the marginals'
    means; rho is 1 in a step of no time.
    """
    _, s, _, later = marginals.steps()
    moves = dt > 0
    noise = diffusion.square() * torch.where(moves, dt, 1.0)
    alpha = (1 + slope * dt) * s * later / noise
    rho = 2 * alpha / (1 + (1 + 4 * alpha.square()).sqrt())
    return torch.where(moves, rho, 1.0)


def bridge(
    frames: Marginals,
    diffusion: Float[Tensor, "batch intervals *shape"],
    times: Float[Tensor, "batch points"],
    saved: Sequence[int],
) -> Marginals:
    """Interpolate the marginals at the `saved` points to the grid `times`, by a Brownian bridge.

    Between two frames h seconds apart with correlation rho, at share v of the way, the mean is
    linear and s^2 = (1-v)^2 s_0^2 + v^2 s_1^2 + 2 v (1-v) rho s_0 s_1 + g^2 h v (1-v).
    """
    if len(saved) == times.shape[1]:
        return frames
    wide = (*times.shape, *[1] * (frames.mean.dim() - 2))
    t = times.view(wide)
    ends = t[:, list(saved)]
    rho = correlation(frames, diffusion, ends.diff(dim=1))
    steps_between = torch.tensor(saved, device=times.device).diff()
    interval = torch.arange(len(steps_between), device=times.device).repeat_interleave(
        steps_between
    )
    span = ends.diff(dim=1)[:, interval]
    share = (t[:, 1:] - ends[:, interval]) / torch.where(span > 0, span, 1.0)
    share = torch.where(span > 0, share, 1.0)
    m, s, next_m, next_s = (part[:, interval] for part in frames.steps())
    left, hump = 1 - share, share * (1 - share)
    variance = left.square() * s.square() + share.square() * next_s.square()
    variance = variance + 2 * hump * rho[:, interval] * s * next_s
    variance = variance + diffusion[:, interval].square() * span * hump
    mean = torch.cat([frames.mean[:, :1], left * m + share * next_m], 1)
    return Marginals(mean, torch.cat([frames.scale[:, :1], variance.sqrt()], 1))


def step_kl(
    marginals: Marginals,
    eps: Float[Tensor, "batch points *shape"],
    drift: Float[Tensor, "batch steps *shape"],
    diffusion: Float[Tensor, "batch steps *shape"],
    dt: Float[Tensor, "batch steps *one"],
    rho: Float[Tensor, "batch steps *shape"],
) -> Float[Tensor, "batch steps *shape"]:
    """Compute the KL of each step and component in nats, at z = mean + scale eps before it.

    Its mean is exact. `drift` and `diffusion` are the prior's at z. A step of no time has none.
    """
    m, s, next_m, next_s = marginals.steps()
    moves = dt > 0
    deviation = diffusion * torch.where(moves, dt, 1.0).sqrt()
    left = torch.where(moves, 1 - rho.square(), 1.0)
    width = next_s * left.sqrt() / deviation
    apart = next_m + rho * next_s * eps[:, :-1] - (m + s * eps[:, :-1]) - drift * dt
    return (control_energy(apart / deviation, moves) + width_kl(width, dt)) * moves


def draw_path(
    rho: Float[Tensor, "batch steps *shape"],
    first: Float[Tensor, "batch *shape"],
    draws: Float[Tensor, "batch steps *shape"],
) -> Float[Tensor, "batch points *shape"]:
    """Draw one path of q as eps_k = (z_k - m_k) / s_k.

    `first` is that at the start, `draws` are standard normals.
    """
    eps = [first]
    for k, draw in enumerate(draws.unbind(1)):
        eps.append(rho[:, k] * eps[-1] + (1 - rho[:, k].square()).clamp(min=0).sqrt() * draw)
    return torch.stack(eps, 1)


def step_log_ratio(
    marginals: Marginals,
    eps: Float[Tensor, "batch points *shape"],
    drift: Float[Tensor, "batch steps *shape"],
    diffusion: Float[Tensor, "batch steps *shape"],
    dt: Float[Tensor, "batch steps *one"],
    rho: Float[Tensor, "batch steps *shape"],
) -> Float[Tensor, "batch steps *shape"]:
    """Compute log p(z_{k+1} | z_k) - log q(z_{k+1} | z_k) along a path `eps` of q, by component."""
    _, _, _, next_s = marginals.steps()
    z = marginals.mean + marginals.scale * eps
    moves = dt > 0
    deviation = diffusion * torch.where(moves, dt, 1.0).sqrt()
    scale = next_s * torch.where(moves, 1 - rho.square(), 1.0).sqrt()
    prior = (z.diff(dim=1) - drift * dt) / deviation
    own = next_s * (eps[:, 1:] - rho * eps[:, :-1]) / scale
    return ((scale / deviation).log() + 0.5 * (own.square() - prior.square())) * moves
