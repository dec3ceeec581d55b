"""Philox in torch and in Triton gives what the CPU draws, to the last bits of float32."""

import math

import pytest
import torch
import triton
import triton.language as tl
from sdevid_kernels import philox
from sdevid_kernels.philox import kernel

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


TOGETHER = [
    philox.Draw(1, Stream.TEXT, False),
    philox.Draw(7, Stream.CONTENT, True),
    philox.Draw(4 * 1024 + 3, Stream.INITIAL, True),  # of several programs
    philox.Draw(10, Stream.CONTEXT, False),
    philox.Draw(2, Stream.CONTEXT, False),
]


@pytest.mark.parametrize("setting", ["reference", "triton"])
def test_draws_together_are_those_made_alone_bit_for_bit(setting):
    serial = SERIAL.to(DEVICE)
    place = torch.zeros(4, 1, dtype=torch.int64, device=DEVICE)
    got = philox.together(SEED, serial, TOGETHER, setting)
    for draw, made in zip(TOGETHER, got, strict=True):
        alone = philox.normals if draw.is_normal else philox.uniforms
        assert torch.equal(made, alone(SEED, serial, place, draw.size, draw.tag, setting)[:, 0])
        assert philox.together(SEED, serial, [draw], setting)[0].equal(made)


@triton.jit
def functions(word_ptr, x_ptr, sine_ptr, cosine_ptr, log_ptr):
    """Evaluate the kernels' cosine, sine and logarithm."""
    i = tl.arange(0, 4096)
    word = tl.load(word_ptr + i).to(tl.uint32, bitcast=True)
    cosine, sine = kernel.rotate(tl.full((4096,), 1.0, tl.float32), word)
    tl.store(sine_ptr + i, sine)
    tl.store(cosine_ptr + i, cosine)
    tl.store(log_ptr + i, kernel.log(tl.load(x_ptr + i)))


def test_sine_cosine_and_logarithm_are_within_two_units_of_float32():
    edges = torch.tensor([0, 1, -1, 2**29, 2**30, 2**31 - 1, -(2**31), 3 * 2**29])
    spread = torch.arange(-(2**31), 2**31, 2**20 + 77)
    words = torch.cat([edges, spread])[:4096].to(torch.int32)
    x = torch.cat([torch.tensor([1.0, 2**-32, 1 - 2**-24]), torch.logspace(-9, 0, 4093)])
    sine, cosine, log = (torch.empty(4096, device=DEVICE) for _ in range(3))
    functions[(1,)](words.to(DEVICE), x.to(DEVICE), sine, cosine, log)
    angle = words.double() * (2 * math.pi * 2**-32)
    limit = 2 * torch.finfo(torch.float32).eps
    assert float((sine.cpu() - angle.sin()).abs().max()) < limit
    assert float((cosine.cpu() - angle.cos()).abs().max()) < limit
    torch.testing.assert_close(log.cpu().double(), x.double().log(), rtol=limit, atol=0)
