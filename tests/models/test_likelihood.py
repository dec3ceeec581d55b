"""Likelihoods are the densities that they name, of anything with batch and time first."""

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal

from sdevid.config import ObservationConfig
from sdevid.models.likelihood import TwoPartLikelihood, build_likelihood, draw, hold_scale


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
    share = likelihood.bias[0].sigmoid()  # at 0.5 the slope does nothing
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


SHARES = torch.tensor([1e-4, 0.1, 0.35, 0.5, 0.8, 0.999])


@pytest.mark.parametrize(("name", "law"), [("laplace", Laplace), ("gaussian", Normal)])
@pytest.mark.parametrize("is_fitted", [False, True])
def test_quantile_is_the_laws(name, law, is_fitted):
    likelihood = build_likelihood(
        ObservationConfig(likelihood=name, scale=0.3, fit_scale=is_fitted)
    )
    got = likelihood.quantile(torch.full_like(SHARES, 0.4), SHARES)
    torch.testing.assert_close(got, law(torch.tensor(0.4), 0.3).icdf(SHARES))


@pytest.mark.parametrize("decoded", [0.02, 0.3, 0.9])
def test_quantile_of_two_parts_leaves_its_share_below(decoded):
    likelihood = two_part()
    x = torch.linspace(0.1, 3.0, 40_001).view(-1, 1, 1)
    density = likelihood.log_prob(torch.full_like(x, decoded), x + 1e-6).exp()[:, 0]
    zero = likelihood.log_prob(torch.full((1, 1, 1), decoded), torch.zeros(1, 1, 1)).exp()[0, 0]
    amounts = torch.cumulative_trapezoid(density, x[:, 0, 0])
    for share in SHARES:
        got = likelihood.quantile(torch.tensor([decoded]), share[None])[0]
        if share <= zero:
            assert got == likelihood.zero
        else:
            place = int(((got - 0.1) / (x[1, 0, 0] - x[0, 0, 0])).round())
            below = zero + amounts[max(place - 1, 0)]
            torch.testing.assert_close(below, share, atol=2e-3, rtol=0)


def test_quantile_of_latents_has_a_scale_for_each_channel():
    likelihood = build_likelihood(ObservationConfig(scale=0.5), latents=2)
    with torch.no_grad():
        likelihood.log_scale.copy_(torch.tensor([0.1, 2.0]).log())
    decoded, share = torch.ones(1, 1, 2, 1, 1), torch.full((1, 1, 2, 1, 1), 0.975)
    got = likelihood.quantile(decoded, share).flatten().tolist()
    assert got == pytest.approx([1 + 0.196, 1 + 3.92], abs=1e-3)


def test_draws_depend_on_serial_and_tick_alone():
    likelihood = build_likelihood(ObservationConfig())
    serial, ticks = torch.tensor([3, 8]), torch.tensor([[10, 20, 30], [20, 40, 60]])
    decoded = torch.full((2, 3, 1, 5, 5), 0.5)
    whole = draw(likelihood, decoded, 4, serial, ticks)
    part = draw(likelihood, decoded[1:, 1:], 4, serial[1:], ticks[1:, 1:])
    torch.testing.assert_close(part, whole[1:, 1:])
    assert whole.flatten(2).std(2).min() > 0.05  # 25 draws of sd 0.2
    assert not torch.equal(whole[0, 1], whole[1, 0])  # the same tick of two clips


@pytest.mark.parametrize("name", ["gaussian", "laplace", "two_part"])
def test_parameters_have_an_axis_for_the_engine_to_broadcast(name):
    likelihood = build_likelihood(ObservationConfig(likelihood=name, fit_scale=True))
    assert [parameter.dim() for parameter in likelihood.parameters()] == [1] * len(
        list(likelihood.parameters())
    )
