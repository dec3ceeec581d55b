import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdevid.errors import UserError
from sdevid.models.attention import attend, backend


def by_definition(query, key, value, seen):
    scores = torch.einsum("blhd,bmhd->bhlm", query, key) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
    return torch.einsum("bhlm,bmhd->blhd", weights, value)


@given(seed=st.integers(0, 1000), length=st.integers(1, 9))
def test_sdpa_is_the_softmax_over_seen_keys(seed, length):
    result = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 2, length, 3, 5, dtype=torch.float64, generator=result)
    seen = torch.rand(2, length, generator=result) < 0.6
    seen[:, 0] = True
    got = attend(query, key, value, seen, "sdpa")
    torch.testing.assert_close(got, by_definition(query, key, value, seen))


@pytest.mark.gpu
def test_packed_xformers_is_the_softmax_over_seen_keys():
    query, key, value = torch.randn(3, 4, 9, 2, 32, device="cuda")
    seen = torch.rand(4, 9, device="cuda") < 0.6
    seen[:, 0] = True
    got = attend(query, key, value, seen, "xformers")
    want = by_definition(query, key, value, seen)
    torch.testing.assert_close(got[seen], want[seen], rtol=1e-2, atol=1e-2)


def test_attention_on_a_cpu_is_sdpa_and_xformers_is_refused():
    assert backend("auto", "cpu") == "sdpa"
    with pytest.raises(UserError, match=r"encoder\.attention is xformers.*set"):
        backend("xformers", "cpu")
