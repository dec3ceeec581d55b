import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)

from sdevid.models.gaussian import Gaussian, GaussianHead, Mixture, kl, kl_to_mixture


@given(seed=st.integers(0, 10_000))
def test_kl_is_the_sum_of_each_components(seed):
    result = torch.Generator().manual_seed(seed)
    q, p = (
        Gaussian(*torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=result)) for _ in range(2)
    )
    q, p = (Gaussian(x.mean, x.scale.exp()) for x in (q, p))
    want = kl_divergence(Normal(*q), Normal(*p)).sum((1, 2))
    torch.testing.assert_close(kl(q, p), want)


def test_head_starts_near_mean_zero_and_the_given_scale():
    torch.manual_seed(0)
    result = GaussianHead(64, 8, start=0.5)(torch.randn(1000, 64))
    assert result.mean.abs().mean() < 0.2
    torch.testing.assert_close(result.scale.mean(), torch.tensor(0.5), rtol=0.1, atol=0)


def test_mixture_is_torchs_in_density_and_in_law_of_samples():
    torch.manual_seed(0)
    logits, mean, scale = torch.randn(1, 3), 3 * torch.randn(1, 3, 2), torch.rand(1, 3, 2) + 0.3
    mixture = Mixture(logits, Gaussian(mean, scale))
    want = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(mean, scale), 1))
    z = torch.randn(7, 2)
    spread = Mixture(logits.expand(7, 3), Gaussian(mean.expand(7, 3, 2), scale.expand(7, 3, 2)))
    torch.testing.assert_close(spread.log_prob(z), want.log_prob(z))
    n = 40_000
    many = Mixture(logits.expand(n, 3), Gaussian(mean.expand(n, 3, 2), scale.expand(n, 3, 2)))
    drawn = many.at(torch.rand(n, 1), torch.randn(n, 2))
    error = (want.variance / n).sqrt()
    assert ((drawn.mean(0) - want.mean[0]).abs() < 4 * error[0]).all()
    torch.testing.assert_close(drawn.var(0), want.variance[0], rtol=0.05, atol=0)
    assert mixture.log_prob(z[:1]).shape == (1,)


def test_kl_to_one_component_is_exact_and_to_many_unbiased():
    torch.manual_seed(0)
    n = 20_000
    q = Gaussian(torch.full((n, 2), 0.3), torch.full((n, 2), 0.5))
    eps = torch.randn(n, 2)
    one = Mixture(torch.zeros(n, 1), Gaussian(torch.zeros(n, 1, 2), torch.ones(n, 1, 2)))
    twice = Mixture(torch.zeros(n, 2), Gaussian(torch.zeros(n, 2, 2), torch.ones(n, 2, 2)))
    exact = kl_to_mixture(q, one, q.at(eps), eps)
    torch.testing.assert_close(exact, kl(q, Gaussian(torch.zeros(n, 2), torch.ones(n, 2))))
    drawn = kl_to_mixture(q, twice, q.at(eps), eps)
    assert (drawn.mean() - exact[0]).abs() < 4 * drawn.std() / n**0.5
