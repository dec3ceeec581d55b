"""Likelihoods of frames given decoded ones: independent errors of one fixed scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.config import ObservationConfig
from sdevid.models.protocols import Likelihood


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


def build_likelihood(settings: ObservationConfig) -> Likelihood:
    """Build the likelihood that `observation.likelihood` names."""
    kinds: dict[str, Callable[[float], Likelihood]] = {
        "gaussian": GaussianLikelihood,
        "laplace": LaplaceLikelihood,
    }
    return kinds[settings.likelihood](settings.scale)
