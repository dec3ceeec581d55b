"""Likelihoods of frames given decoded ones: independent errors of a fixed or fitted scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import ObservationConfig
from sdevid.models.protocols import Likelihood

_LEAST_SCALE = 1e-3  # of a latent, whose deviation over the data is near 1


@dataclass(frozen=True)
class GaussianLikelihood:
    """N(decoded, scale^2) at each value."""

    scale: float

    def log_prob(
        self,
        decoded: Float[Tensor, "batch time *values"],
        target: Float[Tensor, "batch time *values"],
    ) -> Float[Tensor, "batch time"]:
        """Sum the log density over a frame's values, in nats; NaN was not observed."""
        error, seen = _error(decoded, target, self.scale)
        level = math.log(self.scale) + 0.5 * math.log(2 * math.pi)
        return -(0.5 * error.square() + level * seen).sum(2)


@dataclass(frozen=True)
class LaplaceLikelihood:
    """exp(-|target - decoded| / scale) / (2 scale) at each value."""

    scale: float

    def log_prob(
        self,
        decoded: Float[Tensor, "batch time *values"],
        target: Float[Tensor, "batch time *values"],
    ) -> Float[Tensor, "batch time"]:
        """Sum the log density over a frame's values, in nats; NaN was not observed."""
        error, seen = _error(decoded, target, self.scale)
        return -(error.abs() + math.log(2 * self.scale) * seen).sum(2)


def _error(decoded: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(target - decoded) / scale, 0 where the target is NaN; and where it is not. Frames flat."""
    seen = target.isnan().logical_not()
    return torch.where(seen, (target - decoded) / scale, 0.0).flatten(2), seen.flatten(2)


class FittedScale(nn.Module):
    """A likelihood whose scale is learnt, one for each channel of a frozen autoencoder's latents.

    Its logarithm is a weight as any other, with a floor.
    """

    def __init__(self, unit: Likelihood, channels: int, start: float) -> None:
        super().__init__()
        self.unit = unit  # of scale 1
        self.log_scale = nn.Parameter(torch.full((channels,), math.log(start)))

    def log_prob(
        self,
        decoded: Float[Tensor, "batch time channels rows columns"],
        target: Float[Tensor, "batch time channels rows columns"],
    ) -> Float[Tensor, "batch time"]:
        """Sum the log density over a frame's latents, in nats; NaN was not observed."""
        level = self.log_scale.clamp(min=math.log(_LEAST_SCALE)).view(-1, 1, 1)
        seen = target.isnan().logical_not()
        jacobian = (level * seen).flatten(2).sum(2)
        return self.unit.log_prob(decoded / level.exp(), target / level.exp()) - jacobian


def build_likelihood(settings: ObservationConfig, latents: int | None = None) -> Likelihood:
    """Build the likelihood that `observation.likelihood` names.

    Of pixels, or of a frozen autoencoder's `latents`, channels of which each has its own scale.
    """
    kinds: dict[str, Callable[[float], Likelihood]] = {
        "gaussian": GaussianLikelihood,
        "laplace": LaplaceLikelihood,
    }
    kind = kinds[settings.likelihood]
    if latents is None:
        return kind(settings.scale)
    return FittedScale(kind(1.0), latents, settings.scale)
