"""Likelihoods of frames given decoded ones: independent values, of a fixed scale or a fitted one.

A value that was not observed is NaN in the target and counts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import ObservationConfig
from sdevid.errors import UserError
from sdevid.models.growing_noise import GrowingNoise
from sdevid.models.protocols import Likelihood
from sdevid.sde.noise import Stream, uniform_at
from sdevid.types import Frames, Serial, Ticks

_LEAST_SCALE = 1e-3  # of a latent, whose deviation over the data is near 1
_LEAST_SHARE = 2**-25  # half of the step between uniform draws
_LEAST = 1e-4  # share from which the odds of a decoded value are taken, so that they are finite


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

    def typical(self, decoded: Frames) -> Frames:
        """Return the most likely frames: the decoded ones."""
        return decoded

    def quantile(
        self,
        decoded: Float[Tensor, "*values"],
        share: Float[Tensor, "*values"],
        factor: Tensor | float = 1.0,
    ) -> Float[Tensor, "*values"]:
        """Compute the value below which a `share` lies of the law with `factor` times its scale."""
        return _gaussian_quantile(decoded, torch.tensor(self.scale) * factor, share)


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

    def typical(self, decoded: Frames) -> Frames:
        """Return the most likely frames: the decoded ones."""
        return decoded

    def quantile(
        self,
        decoded: Float[Tensor, "*values"],
        share: Float[Tensor, "*values"],
        factor: Tensor | float = 1.0,
    ) -> Float[Tensor, "*values"]:
        """Compute the value below which a `share` lies of the law with `factor` times its scale."""
        return _laplace_quantile(decoded, torch.tensor(self.scale) * factor, share)


class FittedScale(nn.Module):
    """A scale that is learnt once the warm-up is over, and never below its floor."""

    def __init__(self, settings: ObservationConfig) -> None:
        super().__init__()
        self.floor = settings.scale_floor
        self.is_held: Bool[Tensor, ""] | None = None
        excess = torch.tensor([settings.scale - self.floor])  # DeepSpeed broadcasts no scalar
        self.log_excess = nn.Parameter(excess.log())

    def forward(self) -> Float[Tensor, ""]:
        """Return the scale, without a gradient while it is held."""
        free = self.log_excess.float()[0]
        if self.is_held is not None:  # with a gradient of 0, so that every rank has one
            free = torch.where(self.is_held, free.detach(), free)
        return self.floor + free.exp()


class FittedLikelihood(nn.Module):
    """A Gaussian or Laplace likelihood whose one scale is fitted."""

    def __init__(self, settings: ObservationConfig) -> None:
        super().__init__()
        self.scale = FittedScale(settings)
        self._density = _DENSITIES[settings.likelihood]
        self._quantile = _QUANTILES[settings.likelihood]

    def log_prob(
        self,
        decoded: Float[Tensor, "batch time *values"],
        target: Float[Tensor, "batch time *values"],
    ) -> Float[Tensor, "batch time"]:
        """Sum the log density over a frame's values, in nats; NaN was not observed."""
        seen = target.isnan().logical_not()
        error = torch.where(seen, target - decoded, 0.0)
        return _summed(self._density(error, self.scale()), seen)

    def typical(self, decoded: Frames) -> Frames:
        """Return the most likely frames: the decoded ones."""
        return decoded

    def quantile(
        self,
        decoded: Float[Tensor, "*values"],
        share: Float[Tensor, "*values"],
        factor: Tensor | float = 1.0,
    ) -> Float[Tensor, "*values"]:
        """Compute the value below which a `share` lies of the law with `factor` times its scale."""
        return self._quantile(decoded, self.scale() * factor, share)


class TwoPartLikelihood(nn.Module):
    """Zero or not, and how much: for rain and counts, much of which is exactly zero.

    With d decoded, a value is above `zero` with probability sigmoid(bias + slope * logit d), and is
    then N(d, scale^2), cut off at `zero` and normalised. Bias and slope are learnt.
    """

    def __init__(self, settings: ObservationConfig) -> None:
        super().__init__()
        self.zero, self._fixed = settings.zero, settings.scale
        even = settings.zero + 0.5 * settings.scale  # decoded, at which both parts are as likely
        self.bias = nn.Parameter(torch.tensor([2 * math.log(1 / even - 1)]))
        self.log_slope = nn.Parameter(torch.tensor([math.log(2.0)]))
        self.scale = FittedScale(settings) if settings.fit_scale else None

    def log_prob(
        self,
        decoded: Float[Tensor, "batch time *values"],
        target: Float[Tensor, "batch time *values"],
    ) -> Float[Tensor, "batch time"]:
        """Sum the log probability or density over a frame's values; NaN was not observed."""
        seen, odds = target.isnan().logical_not(), self._log_odds(decoded)
        scale = self._scale()
        above = (decoded.float() - self.zero) / scale
        amount = _gaussian(torch.where(seen, target - decoded, 0.0), scale)
        positive = functional.logsigmoid(odds) + amount - torch.special.log_ndtr(above)
        either = torch.where(target > self.zero, positive, functional.logsigmoid(-odds))
        return _summed(either, seen)

    def typical(self, decoded: Frames) -> Frames:
        """Return the decoded frames, with `zero` where that is the likelier part."""
        return torch.where(self._log_odds(decoded) > 0, decoded, self.zero)

    def quantile(
        self,
        decoded: Float[Tensor, "*values"],
        share: Float[Tensor, "*values"],
        factor: Tensor | float = 1.0,
    ) -> Float[Tensor, "*values"]:
        """Compute the value below which a `share` lies of the law with `factor` times its scale.

        Shares up to the probability of zero give `zero`, the others the Gaussian's part above it.
        """
        zero = self._log_odds(decoded).neg().sigmoid()
        scale = self._scale() * factor
        above = torch.special.ndtr((decoded.float() - self.zero) / scale)
        left = (1 - share) / (1 - zero).clamp(min=_LEAST_SHARE)  # of the amounts
        tail = (left.clamp(max=1) * above).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        amount = decoded.float() - scale * torch.special.ndtri(tail)
        return torch.where(share <= zero, self.zero, amount.clamp(min=self.zero))

    def _scale(self) -> Tensor:
        return torch.tensor(self._fixed) if self.scale is None else self.scale()

    def _log_odds(self, decoded: Tensor) -> Tensor:
        share = decoded.float().clamp(_LEAST, 1 - _LEAST)
        return self.bias + self.log_slope.exp() * share.logit()


class LatentLikelihood(nn.Module):
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

    def typical(self, decoded: Frames) -> Frames:
        """Return the most likely latents: the decoded ones."""
        return decoded

    def quantile(
        self,
        decoded: Float[Tensor, "batch time channels rows columns"],
        share: Float[Tensor, "batch time channels rows columns"],
        factor: Tensor | float = 1.0,
    ) -> Float[Tensor, "batch time channels rows columns"]:
        """Compute the latent below which a `share` of the law lies, its scale times `factor`."""
        level = self.log_scale.clamp(min=math.log(_LEAST_SCALE)).view(-1, 1, 1).exp()
        value: Tensor = level * self.unit.quantile(decoded / level, share, factor)
        return value


def _gaussian(error: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * (error / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _laplace(error: Tensor, scale: Tensor) -> Tensor:
    return -(error / scale).abs() - (2 * scale).log()


_DENSITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
}


def _gaussian_quantile(decoded: Tensor, scale: Tensor, share: Tensor) -> Tensor:
    deviation: Tensor = torch.special.ndtri(share)
    return decoded + scale * deviation


def _laplace_quantile(decoded: Tensor, scale: Tensor, share: Tensor) -> Tensor:
    centred = share - 0.5
    return decoded - scale * centred.sign() * torch.log1p(-2 * centred.abs())


_QUANTILES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "gaussian": _gaussian_quantile,
    "laplace": _laplace_quantile,
}


def _error(decoded: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute (target - decoded) / scale, 0 where the target is NaN, and the mask of the rest.

    Frames come back flat.
    """
    seen = target.isnan().logical_not()
    return torch.where(seen, (target - decoded) / scale, 0.0).flatten(2), seen.flatten(2)


def _summed(each: Tensor, seen: Tensor) -> Float[Tensor, "batch time"]:
    """Sum over a frame's values those that were observed."""
    return torch.where(seen, each, 0.0).flatten(2).sum(2)


def build_likelihood(settings: ObservationConfig, latents: int | None = None) -> Likelihood:
    """Build the likelihood that `observation.likelihood` names.

    Of pixels, or of a frozen autoencoder's `latents`, channels of which each has its own scale.
    """
    if settings.likelihood == "two_part":
        if latents is not None:
            raise UserError(
                "observation.likelihood is two_part, which is of values of zero or above, but "
                "with encoder.frozen latents are scored; set observation.likelihood=gaussian"
            )
        return TwoPartLikelihood(settings)
    kinds: dict[str, Callable[[float], Likelihood]] = {
        "gaussian": GaussianLikelihood,
        "laplace": LaplaceLikelihood,
    }
    kind = kinds[settings.likelihood]
    if latents is not None:
        return LatentLikelihood(kind(1.0), latents, settings.scale)
    return FittedLikelihood(settings) if settings.fit_scale else kind(settings.scale)


def is_fitted(likelihood: Likelihood) -> bool:
    """Check whether training fits the likelihood's scale."""
    return isinstance(likelihood, LatentLikelihood) or isinstance(
        getattr(likelihood, "scale", None), FittedScale
    )


def draw(
    likelihood: Likelihood | GrowingNoise,
    decoded: Frames,
    seed: int,
    serial: Serial,
    ticks: Ticks,
    observed: Int64[Tensor, "batch observed"] | None = None,
) -> Frames:
    """Draw frames from p(x | decoded), by the noise of each clip's serial at each tick.

    `observed` are the ticks of the frames that were shown, from which noise may grow.
    """
    shape = tuple(decoded.shape[2:])
    share = uniform_at(seed, serial, Stream.OBSERVATION, ticks, shape).clamp(min=_LEAST_SHARE)
    if not isinstance(likelihood, GrowingNoise):
        return likelihood.quantile(decoded, share)
    factor = 1.0 if observed is None else likelihood.factor(ticks, observed)
    return likelihood.likelihood.quantile(decoded, share, factor)


def hold_scale(likelihood: Likelihood, held: Bool[Tensor, ""]) -> None:
    """Keep a fitted scale as it is, or let it be learnt; a fixed one has nothing to hold."""
    scale = getattr(likelihood, "scale", None)
    if isinstance(scale, FittedScale):
        scale.is_held = held
