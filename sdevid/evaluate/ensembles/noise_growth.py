"""How the noise around a frame grows with time, fitted to forecasts of training clips.

A decoded frame soon after an observed one hardly errs, and a later one does; a scale that is the
same at all times makes early frames too uncertain. Two numbers say how it grows: those of which the
ensembles of training clips, made just as those that are scored, have the least fair CRPS in values
as stored. Held-out clips have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.ensembles.observation_noise import ErrorPower, ObservationNoise
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.ensemble import crps
from sdevid.evaluate.statistics.observed import Values, in_unit_range
from sdevid.models.growing_noise import GrowingNoise, growth_factor, time_from
from sdevid.models.protocols import Likelihood
from sdevid.types import Batch, Ticks

CLIPS = 64  # of the training split, at most
MEMBERS = 6  # of each ensemble
PIXELS = 256  # of each frame, drawn once for a clip
_TRIES = 60  # of a level and a growth
_MARGIN = 1e-6  # of shares, which are in (0, 1)


class Ensemble(NamedTuple):
    """One clip's decoded members, what happened, and when."""

    decoded: Values  # (members, frames, height, width, channels)
    observed: Values  # (frames, height, width, channels)
    ticks: Ticks  # (1, frames)
    given: Ticks  # (1, observed frames), of those that were shown


Forecast = Callable[[Batch, int, Likelihood], Ensemble]  # of a batch of one clip, by its members


def with_growth(
    context: EvalContext, noise: ObservationNoise, forecast: Forecast
) -> ObservationNoise:
    """Fit level and growth of `noise`, if the options ask for it and there is any."""
    own = noise.likelihood
    if own is None or isinstance(own, GrowingNoise) or not context.options.growing_noise:
        return noise
    clips = evenly(min(CLIPS, len(context.training)), len(context.training))
    sample = _sampled(context, clips, forecast)
    before = _score(own, sample, 1.0, 0.0)
    level, growth, after = fit(own, sample)
    record: dict[str, Any] = {
        "level": level,
        "growth": growth,
        "crps": after,
        "crps_without": before,
    }
    record |= {"fitted_by": "forecasts of training clips", "clips": len(clips)}
    return ObservationNoise(GrowingNoise(own, level, growth), noise.record | {"growing": record})


class Sample(NamedTuple):
    """Pixels of many ensembles; uniform draws make members of decoded values."""

    decoded: Float[Tensor, "members clips frames pixels"]
    observed: Float[np.ndarray, "clips frames pixels"]
    share: Float[Tensor, "members clips frames pixels"]
    time: Float[Tensor, "clips frames"]  # from the observed frames, in training frame intervals


def fit(likelihood: Likelihood, sample: Sample) -> tuple[float, float, float]:
    """Find the level and the growth of least fair CRPS, and that score."""
    from scipy.optimize import minimize

    def loss(at: np.ndarray) -> float:
        return _score(likelihood, sample, float(np.exp(at[0])), float(at[1]))

    start = np.array([[0.0, 0.0], [-1.0, 0.0], [-1.0, 0.5]])  # constant; smaller; growing
    found = minimize(
        loss,
        start[0],
        method="Nelder-Mead",
        options={"initial_simplex": start, "maxfev": _TRIES, "xatol": 0.01, "fatol": 1e-7},
    )
    return float(np.exp(found.x[0])), float(found.x[1]), float(found.fun)


@torch.no_grad()
def _score(likelihood: Likelihood, sample: Sample, level: float, growth: float) -> float:
    factor = growth_factor(sample.time, level, growth)[..., None]
    members = likelihood.quantile(sample.decoded, sample.share, factor).clamp(0, 1)
    return float(np.nanmean(crps(members.numpy(), sample.observed)))


def _sampled(context: EvalContext, clips: range, forecast: Forecast) -> Sample:
    """Forecast training clips, and keep some pixels of each."""
    decoded, observed, times = [], [], []
    for part in batches(clips, 1, "noise of forecasts"):
        batch = stream.fixed(context.training, context.config, part)
        one = forecast(batch, MEMBERS, ErrorPower(2))
        rng = np.random.default_rng((context.seed, int(batch.serial[0])))
        members, truth = (
            in_unit_range(each).reshape(*each.shape[:-3], -1)
            for each in (one.decoded, one.observed)
        )
        chosen = rng.permutation(truth.shape[-1])[:PIXELS]
        decoded.append(members[..., chosen])
        observed.append(truth[..., chosen])
        times.append(time_from(one.ticks, one.given)[0])
    values = torch.from_numpy(np.stack(decoded, axis=1)).float()
    draws = np.random.default_rng(context.seed).uniform(_MARGIN, 1 - _MARGIN, values.shape)
    share = torch.from_numpy(draws).float()
    return Sample(values, np.stack(observed).astype(np.float32), share, torch.stack(times))
