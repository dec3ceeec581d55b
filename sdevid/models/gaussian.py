"""Diagonal Gaussians and mixtures of them: heads that read them from features, samples and KL."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_SCALE = 1e-3


class Gaussian(NamedTuple):
    """A diagonal Gaussian in float32."""

    mean: Float[Tensor, "*shape"]
    scale: Float[Tensor, "*shape"]  # standard deviation

    def at(self, eps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Compute the sample mean + scale * eps for standard normal `eps`."""
        return self.mean + self.scale * eps


def kl(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """Compute KL(q || p) in nats, summed over all axes but the first."""
    ratio = q.scale / p.scale
    apart = (q.mean - p.mean) / p.scale
    return (0.5 * (ratio.square() + apart.square() - 1) - ratio.log()).flatten(1).sum(1)


class GaussianHead(nn.Module):
    """Maps features to a Gaussian of `size` components; starts at mean 0 and scale `start`."""

    def __init__(self, features: int, size: int, start: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * size)
        nn.init.normal_(self.linear.weight, std=0.1 * features**-0.5)
        nn.init.zeros_(self.linear.bias)
        self.shift = math.log(math.expm1(start - SMALLEST_SCALE))

    def forward(self, features: Float[Tensor, "*batch features"]) -> Gaussian:
        """Compute the Gaussian of each row of features, in float32."""
        mean, width = self.linear(features).float().chunk(2, dim=-1)
        return Gaussian(mean, SMALLEST_SCALE + functional.softplus(width + self.shift))


class Mixture(NamedTuple):
    """A mixture of diagonal Gaussians over all but the batch axis, in float32."""

    logits: Float[Tensor, "batch components"]
    parts: Gaussian  # (batch, components, *shape)

    def at(
        self, choice: Float[Tensor, "batch 1"], eps: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch *shape"]:
        """Compute the sample that uniform `choice` and standard normal `eps` select."""
        below = self.logits.softmax(1).cumsum(1)[:, :-1] <= choice
        rows, part = torch.arange(len(eps), device=eps.device), below.sum(1)
        return Gaussian(self.parts.mean[rows, part], self.parts.scale[rows, part]).at(eps)

    def log_prob(self, z: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
        """Compute the log density at `z`, in nats."""
        apart = (z[:, None] - self.parts.mean) / self.parts.scale
        level = self.parts.scale.log() + 0.5 * math.log(2 * math.pi)
        each = -(0.5 * apart.square() + level).flatten(2).sum(2)
        return torch.logsumexp(self.logits.log_softmax(1) + each, dim=1)


def kl_to_mixture(
    q: Gaussian, p: Mixture, z: Float[Tensor, "batch *shape"], eps: Float[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    """Compute KL(q || p) in nats: exactly for one component, else an estimate at z = q.at(eps).

    The estimate is unbiased.
    """
    if p.logits.shape[1] == 1:
        return kl(q, Gaussian(p.parts.mean[:, 0], p.parts.scale[:, 0]))
    level = q.scale.log() + 0.5 * math.log(2 * math.pi)
    return -(0.5 * eps.square() + level).flatten(1).sum(1) - p.log_prob(z)
