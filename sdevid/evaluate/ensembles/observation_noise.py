"""Noise of the observation model, which the predictive distribution of a frame includes.

A decoded frame is the mean of p(x | z): what happens also has the noise around it, be it of a
camera or of what the state leaves out. Training may fit its scale (`observation.fit_scale`, latents
of an autoencoder). A scale that is a setting weighs the likelihood and says nothing of the film, so
it is fitted here, by maximum likelihood, to what the posterior leaves of training clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.progress import batches, evenly
from sdevid.models.growing_noise import GrowingNoise
from sdevid.models.likelihood import (
    GaussianLikelihood,
    LaplaceLikelihood,
    TwoPartLikelihood,
    is_fitted,
)
from sdevid.models.protocols import Likelihood
from sdevid.models.video_model import VideoModel

CLIPS = 64  # of the training split, to which a scale is fitted, at most
_BATCH = 8


class ObservationNoise(NamedTuple):
    """The law of a frame around a decoded one, and where its scale comes from."""

    likelihood: Likelihood | GrowingNoise | None  # None: the objective scores no frames
    record: dict[str, Any]


class ErrorPower:
    """Stands in for a likelihood; its `log_prob` sums |target - decoded|^power over seen values."""

    def __init__(self, power: int) -> None:
        self.power = power

    def log_prob(self, decoded: Tensor, target: Tensor) -> Float[Tensor, "batch time"]:
        """Sum the powers over a frame; with power 0 that counts the values seen."""
        seen = target.isnan().logical_not()
        error = torch.where(seen, target - decoded, 0.0).abs()
        return torch.where(seen, error**self.power, 0.0).flatten(2).sum(2)

    def typical(self, decoded: Tensor) -> Tensor:
        """Return the decoded frames."""
        return decoded

    def quantile(
        self,
        decoded: Tensor,
        share: Tensor,  # noqa: ARG002
        factor: Tensor | float = 1.0,  # noqa: ARG002
    ) -> Tensor:
        """Return the decoded frames: this is no distribution."""
        return decoded


def observation_noise(context: EvalContext) -> ObservationNoise:
    """Take the noise that training fitted, or fit it to training clips."""
    likelihood = context.model.likelihood
    kind = context.config.observation.likelihood
    if is_fitted(likelihood):
        return ObservationNoise(likelihood, {"likelihood": kind, "fitted_by": "training"})
    power = 1 if isinstance(likelihood, LaplaceLikelihood) else 2
    total, count = (_summed(context, each) for each in (power, 0))
    if total is None or not count:
        return ObservationNoise(None, {"likelihood": kind, "fitted_by": "nothing"})
    scale = (total / count) ** (1 / power)
    record = {"likelihood": kind, "fitted_by": "training clips", "scale": scale}
    return ObservationNoise(_rescaled(likelihood, scale), record)


def _rescaled(likelihood: Likelihood, scale: float) -> Likelihood | None:
    """Give the likelihood this scale; a two-part one keeps its own, which its zeros would bias."""
    if isinstance(likelihood, (GaussianLikelihood, LaplaceLikelihood)):
        return replace(likelihood, scale=max(scale, 1e-6))
    return likelihood if isinstance(likelihood, TwoPartLikelihood) else None


@torch.no_grad()
def _summed(context: EvalContext, power: int) -> float | None:
    """Sum the posterior's errors on training clips; None if the objective scores no frames."""
    clips = evenly(min(CLIPS, len(context.training)), len(context.training))
    total = 0.0
    with _scored_by(context.model, ErrorPower(power)):
        for part in batches(clips, _BATCH, "observation noise"):
            batch = stream.fixed(context.training, context.config, part)
            video, ticks, serial = (
                each.to(context.device) for each in (batch.video, batch.ticks, batch.serial)
            )
            terms = context.objective.terms(video, ticks, serial, context.options.context)
            if "reconstruction" not in terms:
                return None
            total += float(terms["reconstruction"].double().sum())
    return total


@contextmanager
def _scored_by(model: VideoModel, likelihood: Likelihood) -> Iterator[None]:
    """Score decoded frames by another likelihood, inside."""
    own = model.likelihood
    model.likelihood = likelihood
    try:
        yield
    finally:
        model.likelihood = own
