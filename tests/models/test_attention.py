import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from sdevid.errors import UserError
from sdevid.models.attention import attend, attend_packed, block_diagonal, packed_backend
from sdevid.models.packing import Packing


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
    got = attend(query, key, value, seen)
    torch.testing.assert_close(got, by_definition(query, key, value, seen))


def packed_case(dtype=torch.float64, device="cpu"):
    """Query, key and value of rows of 9 places, four heads of 16, and which places are seen."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 5, 9, 4, 16, dtype=torch.float64, generator=generator)
    seen = torch.rand(5, 9, generator=generator) < 0.5
    seen[:, 0], seen[1, 1:], seen[2] = True, False, True  # among them one alone, and all
    return x.to(device, dtype).requires_grad_(), seen.to(device)


def gradient_of(out, seen, leaf):
    weight = torch.arange(out.numel(), dtype=out.dtype, device=out.device).view_as(out).cos()
    return torch.autograd.grad((out * weight)[seen].sum(), leaf)[0]


def test_packed_attention_and_gradient_equal_masked_attention():
    x, seen = packed_case()
    packing = Packing.of(seen)
    out = packing.unpack(attend_packed(*(packing.pack(each) for each in x), packing, "sdpa"))
    masked = by_definition(*x, seen)
    torch.testing.assert_close(out[seen], masked[seen])
    assert not out[~seen].any()
    torch.testing.assert_close(gradient_of(out, seen, x), gradient_of(masked, seen, x))


def test_block_diagonal_mask_of_a_pack_equals_masked_attention():
    x, seen = packed_case()
    packing = Packing.of(seen)
    query, key, value = (packing.pack(each).transpose(0, 1) for each in x)
    bias = block_diagonal(packing).materialize((len(packing.places),) * 2).double()
    out = functional.scaled_dot_product_attention(query, key, value, bias).transpose(0, 1)
    torch.testing.assert_close(out, packing.pack(by_definition(*x, seen)))


@pytest.mark.gpu
def test_xformers_over_a_pack_equals_masked_attention():
    x, seen = packed_case(torch.bfloat16, "cuda")
    packing = Packing.of(seen)
    out = attend_packed(*(packing.pack(each) for each in x), packing, "xformers")
    want = packing.pack(by_definition(*x.double(), seen))
    torch.testing.assert_close(out.double(), want, rtol=2e-2, atol=2e-2)


def test_packed_attention_on_a_cpu_is_sdpa_and_xformers_is_refused():
    assert packed_backend("auto", "cpu") == "sdpa"
    with pytest.raises(UserError, match=r"encoder\.attention is xformers.*set"):
        packed_backend("xformers", "cpu")
