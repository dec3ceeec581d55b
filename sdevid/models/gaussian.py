"""Diagonal Gaussians: a head that reads one from features, its sample and its KL."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_SCALE = 1e-3


class Gaussian(NamedTuple):
    """A diagonal Gaussian in float32."""

    mean: Float[Tensor, "*shape"]
    scale: Float[Tensor, "*shape"]  # standard deviation

    def at(self, eps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The sample that standard normal `eps` stands for."""
        return self.mean + self.scale * eps


def kl(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """KL(q || p) in nats, summed over all axes but the first."""
    ratio = q.scale / p.scale
    apart = (q.mean - p.mean) / p.scale
    return (0.5 * (ratio.square() + apart.square() - 1) - ratio.log()).flatten(1).sum(1)


class GaussianHead(nn.Module):
    """Features to a Gaussian of `size` components; starts at mean 0 and scale `start`."""

    def __init__(self, features: int, size: int, start: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * size)
        nn.init.normal_(self.linear.weight, std=0.1 * features**-0.5)
        nn.init.zeros_(self.linear.bias)
        self.shift = math.log(math.expm1(start - SMALLEST_SCALE))

    def forward(self, features: Float[Tensor, "*batch features"]) -> Gaussian:
        mean, width = self.linear(features).float().chunk(2, dim=-1)
        return Gaussian(mean, SMALLEST_SCALE + functional.softplus(width + self.shift))
