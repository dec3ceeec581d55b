"""Philox in torch and in Triton gives what the CPU draws, to the last bits of float32."""

import pytest
import torch
from sdevid_kernels import philox

from sdevid.sde.noise import Brownian, Stream, normal, uniform
from sdevid.types import TICKS_PER_UNIT

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them
SEED = 2**63 + 12345
SERIAL = torch.tensor([0, 7, 2**40 + 3, 2**31])


@pytest.mark.parametrize("setting", ["reference", "triton"])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_same_draws_as_the_cpu(setting, size):
    cells = torch.tensor([[0, 1, 2, 2**33 + 1]] * 4)
    got = philox.normals(SEED, SERIAL.to(DEVICE), cells.to(DEVICE), size, setting=setting).cpu()
    for k in range(4):
        cell = cells[:, k : k + 1]
        path = Brownian(SEED, SERIAL, (size,), cell=1)
        want = path.increments(torch.cat([cell, cell + 1], 1))[:, 0] * TICKS_PER_UNIT**0.5
        torch.testing.assert_close(got[:, k], want, rtol=2e-6, atol=1e-6)


def test_tag_is_the_stream():
    got = philox.normals(3, SERIAL, torch.zeros(4, 1, dtype=torch.int64), 5, tag=Stream.CONTENT)
    torch.testing.assert_close(
        got[:, 0], normal(3, SERIAL, Stream.CONTENT, (5,)), rtol=2e-6, atol=1e-6
    )


@pytest.mark.parametrize("setting", ["reference", "triton"])
@pytest.mark.parametrize("size", [1, 6])
def test_uniform_draws_are_the_cpus_exactly(setting, size):
    place = torch.zeros(4, 1, dtype=torch.int64, device=DEVICE)
    got = philox.uniforms(SEED, SERIAL.to(DEVICE), place, size, Stream.CONTEXT, setting=setting)
    assert torch.equal(got[:, 0].cpu(), uniform(SEED, SERIAL, Stream.CONTEXT, (size,)))
