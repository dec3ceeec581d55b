"""Likelihoods are the densities that they name, of anything with batch and time first."""

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal

from sdevid.config import ObservationConfig
from sdevid.models.likelihood import TwoPartLikelihood, build_likelihood, hold_scale


@pytest.mark.parametrize(("name", "law"), [("laplace", Laplace), ("gaussian", Normal)])
@pytest.mark.parametrize("values", [(1, 5, 5), (7,), (2, 3, 4, 5)])
def test_likelihood_log_prob_is_the_laws(name, law, values):
    decoded, target = torch.rand(2, 3, 4, *values)
    want = law(decoded, 0.3).log_prob(target).flatten(2).sum(2)
    likelihood = build_likelihood(ObservationConfig(likelihood=name, scale=0.3))
    torch.testing.assert_close(likelihood.log_prob(decoded, target), want)


def two_part(**settings) -> TwoPartLikelihood:
    likelihood = build_likelihood(
        ObservationConfig(likelihood="two_part", scale=0.2, zero=0.1, **settings)
    )
    assert isinstance(likelihood, TwoPartLikelihood)
    with torch.no_grad():
        likelihood.bias.fill_(0.7)
        likelihood.log_slope.fill_(-0.3)
    return likelihood


@pytest.mark.parametrize("decoded", [0.02, 0.3, 0.9])
def test_two_part_is_a_distribution(decoded):
    likelihood = two_part()
    x = torch.linspace(0.1, 3.0, 40_001).view(-1, 1, 1)
    densities = likelihood.log_prob(torch.full_like(x, decoded), x + 1e-6).exp()
    zero = likelihood.log_prob(torch.full((1, 1, 1), decoded), torch.zeros(1, 1, 1)).exp()
    whole = zero + torch.trapezoid(densities[:, 0], x[:, 0, 0])
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-4, rtol=0)


def test_two_part_learns_how_often_and_how_much():
    torch.manual_seed(0)
    wet = torch.rand(400, 1, 1) < 0.3
    target = torch.where(wet, 0.5 + 0.05 * torch.randn(400, 1, 1), 0.0)
    decoded = torch.full_like(target, 0.5)
    likelihood = two_part(fit_scale=True)
    fit(likelihood, decoded, target)
    share = likelihood.bias.sigmoid()  # at 0.5 the slope does nothing
    torch.testing.assert_close(share, wet.float().mean(), atol=1e-2, rtol=0)
    torch.testing.assert_close(likelihood.scale(), torch.tensor(0.05), atol=5e-3, rtol=0)
    assert not likelihood.typical(decoded[:1, :, :, None, None] * 0.1).max() > 0.1


@pytest.mark.parametrize("name", ["gaussian", "laplace", "two_part"])
def test_unobserved_values_give_no_gradient(name):
    decoded = torch.full((1, 1, 2), 0.4, requires_grad=True)
    target = torch.tensor([[[0.5, torch.nan]]])
    for settings in ({}, {"fit_scale": True}):
        likelihood = build_likelihood(ObservationConfig(likelihood=name, **settings))
        (slope,) = torch.autograd.grad(likelihood.log_prob(decoded, target).sum(), decoded)
        assert slope.isfinite().all()
        assert (slope[0, 0] != 0).tolist() == [True, False]


def fit(likelihood: nn.Module, decoded: torch.Tensor, target: torch.Tensor) -> None:
    """Maximise the likelihood."""
    steps = torch.optim.LBFGS(likelihood.parameters(), max_iter=100)

    def loss() -> torch.Tensor:
        steps.zero_grad()
        value = -likelihood.log_prob(decoded, target).mean()
        value.backward()
        return value

    steps.step(loss)


@pytest.mark.parametrize(("floor", "want"), [(0.01, 0.07), (0.15, 0.15)])
def test_fitted_scale_is_the_errors_or_its_floor(floor, want):
    torch.manual_seed(0)
    decoded = torch.rand(2_000, 1, 1)
    likelihood = build_likelihood(ObservationConfig(fit_scale=True, scale_floor=floor))
    fit(likelihood, decoded, decoded + 0.07 * torch.randn_like(decoded))
    torch.testing.assert_close(likelihood.scale(), torch.tensor(want), atol=4e-3, rtol=0)


def test_scale_is_held_during_the_warm_up():
    likelihood = build_likelihood(ObservationConfig(fit_scale=True, scale=0.2))
    decoded, target = torch.rand(2, 1, 3), torch.rand(2, 1, 3)
    for held in (True, False):
        hold_scale(likelihood, torch.tensor(held))
        likelihood.zero_grad()
        likelihood.log_prob(decoded, target).sum().backward()
        assert (likelihood.scale.log_excess.grad == 0) == held
    torch.testing.assert_close(likelihood.scale(), torch.tensor(0.2))
