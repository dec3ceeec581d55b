"""Noise that grows with the time from the observed frames, and the fit of how."""

import numpy as np
import pytest
import torch

from sdevid.evaluate.ensembles.noise_growth import Sample, fit
from sdevid.evaluate.statistics.ensemble import crps
from sdevid.models.growing_noise import GrowingNoise, growth_factor, time_from
from sdevid.models.likelihood import GaussianLikelihood, LaplaceLikelihood, draw
from sdevid.types import TICKS_PER_UNIT

LEADS = torch.arange(1.0, 11.0)


def sample(likelihood, level: float, growth: float, members: int = 6, clips: int = 40) -> Sample:
    """Decoded grey .5, and truth whose spread is `level` lead^growth of the likelihood's scale."""
    generator = torch.Generator().manual_seed(0)
    shape = (clips, len(LEADS), 64)
    factor = growth_factor(LEADS, level, growth)[:, None]
    decoded = torch.full((members, *shape), 0.5)
    draws = torch.rand((members + 1, *shape), generator=generator).clamp(1e-6, 1 - 1e-6)
    truth = likelihood.quantile(decoded[0], draws[0], factor)
    return Sample(decoded, truth.numpy(), draws[1:], LEADS.expand(clips, -1))


@pytest.mark.parametrize("law", [GaussianLikelihood, LaplaceLikelihood])
@pytest.mark.parametrize(("level", "growth"), [(0.4, 0.5), (1.2, 0.0)])
def test_level_and_growth_of_the_truth_are_found(law, level, growth):
    likelihood = law(0.05)
    found = fit(likelihood, sample(likelihood, level, growth))
    assert found[0] == pytest.approx(level, rel=0.06)
    assert found[1] == pytest.approx(growth, abs=0.04)


def test_values_that_were_not_observed_count_nothing():
    likelihood = GaussianLikelihood(0.05)
    whole = sample(likelihood, 0.5, 0.4)
    torn = whole.observed.copy()
    torn[::2] = np.nan
    level, growth, score = fit(likelihood, whole._replace(observed=torn))
    assert np.isfinite(score)
    assert (level, growth) == (pytest.approx(0.5, rel=0.08), pytest.approx(0.4, abs=0.05))


def test_time_from_observed_frames_is_that_of_a_bridge_between_two():
    observed = TICKS_PER_UNIT * torch.tensor([[2, 7]])
    ticks = TICKS_PER_UNIT * torch.tensor([[0, 2, 3, 6, 7, 10]])
    assert time_from(ticks, observed).tolist() == [
        [2.0, 0.0, pytest.approx(0.8), pytest.approx(0.8), 0.0, 3.0]
    ]


def test_spread_of_draws_grows_as_the_law_says():
    noise = GrowingNoise(GaussianLikelihood(0.1), level=0.5, growth=0.5)
    ticks = TICKS_PER_UNIT * torch.tensor([[1, 4, 9]])
    decoded = torch.full((1, 3, 1, 64, 64), 0.5)
    drawn = draw(noise, decoded, 0, torch.tensor([0]), ticks, torch.zeros(1, 1, dtype=torch.int64))
    spread = (drawn - decoded).flatten(2).std(2)[0]
    torch.testing.assert_close(spread, torch.tensor([0.05, 0.1, 0.15]), rtol=0.05, atol=0)


def test_fair_crps_of_the_fit_is_below_that_of_a_constant_scale():
    likelihood = GaussianLikelihood(0.05)
    truth = sample(likelihood, 0.3, 0.6)
    level, growth, score = fit(likelihood, truth)
    constant = likelihood.quantile(truth.decoded, truth.share)
    assert score < float(crps(constant.numpy(), truth.observed).mean())
    assert level * growth > 0
