"""The birth's chain against closed forms: a normal law, and a mixture whose endpoint is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdevid.errors import UserError
from sdevid.sde import birth

MEANS = torch.tensor([[1.2, 0.4], [-0.9, 0.8], [0.1, -1.3]])
SHARES = torch.tensor([0.5, 0.3, 0.2])
SCALE = 0.35


def mixture_log_prob(y: Tensor) -> Tensor:
    """log density of the mixture at `y`, (..., 2)."""
    apart = ((y[..., None, :] - MEANS) / SCALE).square().sum(-1)
    level = SHARES.log() - 2 * math.log(SCALE) - math.log(2 * math.pi)
    return torch.logsumexp(level - 0.5 * apart, dim=-1)


def mixture_endpoint(x: Tensor, left: Tensor) -> Tensor:
    """E[y | X_s = x], exact: of each part the Gaussian's, mixed by its share given x."""
    s, left = (1 - left)[..., None, None], left[..., None, None]
    apart = x[..., None, :] - s * MEANS
    spread = s * SCALE**2 + left  # of X given the part, over s
    shares = SHARES.log() - 0.5 * (apart.square() / (s.clamp(min=1e-9) * spread)).sum(-1)
    each = MEANS + SCALE**2 / spread * apart
    return (shares.softmax(-1)[..., None] * each).sum(-2)


def mixture_draws(count: int, generator: torch.Generator) -> Tensor:
    part = torch.multinomial(SHARES, count, replacement=True, generator=generator)
    return MEANS[part] + SCALE * torch.randn(count, 2, generator=generator)


def normal_endpoint(x: Tensor, _: Tensor) -> Tensor:
    """E[y | X_s = x] of a standard normal y."""
    return x


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_bound_of_mixture_is_within_0_05_nats_of_log_p(generator):
    y, grid = mixture_draws(40_000, generator), birth.schedule(64, 0.01)
    noise = torch.randn(len(y), 64, 2, generator=generator)
    gap = birth.bound(y, mixture_endpoint, grid, noise) + mixture_log_prob(y)
    error = 3 * float(gap.std()) / len(y) ** 0.5
    assert error < 0.03
    assert -error < float(gap.mean()) < 0.05


def test_bound_gets_tighter_with_steps(generator):
    y = mixture_draws(4_000, generator)
    gaps = []
    for steps in (2, 8, 32):
        noise = torch.randn(len(y), steps, 2, generator=generator)
        bound = birth.bound(y, mixture_endpoint, birth.schedule(steps, 0.02), noise)
        gaps.append(float((bound + mixture_log_prob(y)).mean()))
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_bound_on_kl_of_two_normals_is_exact_to_a_hundredth(generator):
    mean, scale, count = 1.3, 0.2, 200_000
    eps = torch.randn(count, 1, generator=generator)
    grid = birth.schedule(64, 0.01)
    noise = torch.randn(count, 64, 1, generator=generator)
    log_q = -0.5 * eps[:, 0].square() - math.log(scale) - 0.5 * math.log(2 * math.pi)
    kl = birth.bound(mean + scale * eps, normal_endpoint, grid, noise) + log_q
    exact = 0.5 * (scale**2 + mean**2 - 1) - math.log(scale)
    assert exact == pytest.approx(1.974, abs=5e-4)
    assert float(kl.mean()) == pytest.approx(1.972, abs=0.006)


def test_birth_in_one_step_is_a_gaussian_at_the_prediction(generator):
    y = torch.randn(5, 3, 2, generator=generator)
    bound = birth.bound(y, normal_endpoint, birth.schedule(1, 0.5), torch.randn(5, 1, 3, 2))
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(bound, expected)


@pytest.mark.parametrize("chosen", [1, 3])
def test_steps_drawn_at_random_give_the_whole_bound_in_the_mean(chosen, generator):
    y, grid, count = torch.tensor([[0.7, -0.4]]), birth.schedule(12, 0.05), 60_000
    many = y.expand(count, -1)
    drawn = birth.draw_steps(grid, torch.rand(count, chosen, generator=generator))
    noise = torch.randn(count, chosen, 2, generator=generator)
    bound = birth.bound(many, mixture_endpoint, grid, noise, drawn)
    noise = torch.randn(count, 12, 2, generator=generator)
    whole = birth.bound(many, mixture_endpoint, grid, noise)
    error = math.hypot(float(bound.std()), float(whole.std())) / count**0.5
    assert float(bound.mean()) == pytest.approx(float(whole.mean()), abs=4 * error)
    assert 4 * error < 0.1


def test_each_step_is_drawn_as_often_as_it_is_counted(generator):
    grid = birth.schedule(9, 0.1)
    drawn = birth.draw_steps(grid, torch.rand(90_000, 2, generator=generator))
    totals = torch.zeros(9).scatter_add_(0, drawn.step.flatten(), drawn.weight.flatten())
    torch.testing.assert_close(totals / 90_000, torch.ones(9), atol=0.03, rtol=0)


def test_log_ratio_is_an_unbiased_weight_with_bound_as_mean(generator):
    grid, count = birth.schedule(8, 0.05), 100_000
    y = torch.tensor([[0.8, -0.5]]).expand(count, -1)
    noise = torch.randn(count, 8, 2, generator=generator)
    ratio = birth.log_ratio(y, normal_endpoint, grid, noise)
    bound = birth.bound(y, normal_endpoint, grid, noise)
    assert float(-ratio.mean()) == pytest.approx(float(bound.mean()), abs=0.02)
    density = float(torch.logsumexp(ratio, 0)) - math.log(count)  # the chain's law is N(0, 1)
    exact = float(torch.distributions.Normal(0.0, 1.0).log_prob(y[0]).sum())
    assert density == pytest.approx(exact, abs=0.01)
    assert -float(bound.mean()) < exact


def test_born_draws_have_the_law_of_the_mixture(generator):
    noise = torch.randn(20_000, 64, 2, generator=generator)
    born = birth.sample(mixture_endpoint, birth.schedule(64, 0.01), noise)
    expected = SHARES @ MEANS
    torch.testing.assert_close(born.y.mean(0), expected, atol=0.03, rtol=0)
    near = (born.y[:, None] - MEANS).square().sum(-1).argmin(1)
    torch.testing.assert_close(torch.bincount(near) / len(near), SHARES, atol=0.02, rtol=0)
    apart = born.y - MEANS[near]
    assert float(apart.std()) == pytest.approx(SCALE, rel=0.05)
    assert float(born.nats.abs().max()) == 0


def toward(target: float) -> birth.Predict:
    """A prediction that always names the same endpoint."""
    return lambda x, _: torch.full_like(x, target)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1.0, 3.0])
def test_birth_guidance_costs_the_kl_of_the_chains(scale, generator):
    grid = birth.schedule(16, 0.02)
    noise = torch.randn(4_000, 16, 2, generator=generator)
    born = birth.sample(toward(1.0), grid, noise, away=toward(0.5), guidance_scale=scale)
    assert float(born.y.mean()) == pytest.approx(0.5 + 0.5 * scale, abs=0.01)
    added = (scale - 1) * 0.5
    cost = 0.5 * 2 * added**2 * float((grid.duration / grid.remaining.square()).sum())
    torch.testing.assert_close(born.nats, torch.full((4_000,), cost))


def test_guidance_costs_more_the_colder_the_noise(generator):
    grid, noise = birth.schedule(8, 0.1), torch.randn(3, 8, 2, generator=generator)

    def nats(temperature: float) -> Tensor:
        guide = {"away": toward(0.0), "guidance_scale": 2.0}
        return birth.sample(toward(1.0), grid, noise, temperature=temperature, **guide).nats

    torch.testing.assert_close(nats(0.5), 4 * nats(1.0))
    assert bool(nats(0.0).isinf().all())
    unguided = birth.sample(toward(1.0), grid, noise, temperature=0.0)
    assert float(unguided.nats.max()) == 0


@pytest.mark.parametrize(
    ("steps", "last", "name"), [(0, 0.1, "birth.steps"), (4, 1.0, "birth.last")]
)
def test_schedule_that_cannot_be_names_the_setting(steps, last, name):
    with pytest.raises(UserError, match=name):
        birth.schedule(steps, last)
