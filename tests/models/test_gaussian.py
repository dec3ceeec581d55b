import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from sdevid.models.gaussian import Gaussian, GaussianHead, kl


@given(seed=st.integers(0, 10_000))
def test_kl_is_the_sum_of_each_components(seed):
    made = torch.Generator().manual_seed(seed)
    q, p = (
        Gaussian(*torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=made)) for _ in range(2)
    )
    q, p = (Gaussian(x.mean, x.scale.exp()) for x in (q, p))
    want = kl_divergence(Normal(*q), Normal(*p)).sum((1, 2))
    torch.testing.assert_close(kl(q, p), want)


def test_head_starts_near_mean_zero_and_the_given_scale():
    torch.manual_seed(0)
    made = GaussianHead(64, 8, start=0.5)(torch.randn(1000, 64))
    assert made.mean.abs().mean() < 0.2
    torch.testing.assert_close(made.scale.mean(), torch.tensor(0.5), rtol=0.1, atol=0)
