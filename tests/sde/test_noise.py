"""Noise is a pure function of (seed, serial, tick, component), and has the law it should have."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdevid.errors import UserError
from sdevid.sde import philox
from sdevid.sde.noise import Brownian, Stream, normal, uniform
from sdevid.types import TICKS_PER_UNIT

CELL = 4800
SERIAL = torch.tensor([5, 2**40 + 3, 17])


def _kolmogorov_smirnov(values: torch.Tensor) -> float:
    """Distance to the standard normal's distribution, times sqrt(n): 1.95 has p = 0.001."""
    ordered = values.flatten().double().sort().values
    n = len(ordered)
    exact = torch.special.ndtr(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(math.sqrt(n) * torch.maximum(exact - steps[:-1], steps[1:] - exact).max())


def test_words_are_the_published_ones():
    """Known answers of Random123 for philox4x32-10: counter and key all ones; digits of pi."""
    ones = np.full(1, 0xFFFFFFFF, np.uint64)
    got = philox.words(2**64 - 1, ones | ones << np.uint64(32), ones, ones)
    assert [f"{w:08x}" for w in got[0]] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    pi = [np.full(1, w, np.uint64) for w in (0x85A308D3243F6A88, 0x13198A2E, 0x03707344)]
    got = philox.words(0x299F31D0A4093822, *pi)
    assert [f"{w:08x}" for w in got[0]] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


def test_blocks_do_not_show():
    index = np.arange(20_000, dtype=np.uint64)
    zero = np.zeros_like(index)
    whole = philox.normals(9, index, zero, zero)
    np.testing.assert_array_equal(
        whole[12_345:12_350], philox.normals(9, *(index[12_345:12_350], zero[:5], zero[:5]))
    )


def test_draws_are_standard_normal():
    draws = normal(1, torch.arange(200), Stream.INITIAL, (501,))
    assert draws.dtype == torch.float32
    assert _kolmogorov_smirnov(draws) < 1.95
    assert abs(float(draws.double().var()) - 1) < 4 * math.sqrt(2 / draws.numel())


def test_uniform_draws_fill_the_unit_interval():
    draws = uniform(1, torch.arange(300), Stream.CROP, (101,))
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    assert _kolmogorov_smirnov(torch.special.ndtri(draws.double() + 2**-25)) < 1.95


def test_increments_have_the_variance_of_their_time():
    ticks = torch.tensor([[0, 700, 4800, 5000, 14400, 33600]]).expand(400, -1)
    steps = Brownian(2, torch.arange(400), (25,), CELL).increments(ticks)
    seconds = (ticks[0].diff() / TICKS_PER_UNIT).float()
    scaled = steps / seconds.sqrt()[:, None]
    for k in range(5):
        assert _kolmogorov_smirnov(scaled[:, k]) < 1.95, k
    correlation = torch.corrcoef(scaled.transpose(0, 1).flatten(1)) - torch.eye(5)
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(10_000)


def test_clips_components_seeds_and_streams_are_independent():
    ticks = (torch.arange(201) * CELL)[None]
    paths = [
        Brownian(seed, torch.tensor([serial]), (6,), CELL).increments(ticks)[0].T
        for seed, serial in [(1, 3), (1, 4), (2, 3), (1, 3 + 2**32), (1 + 2**32, 3)]
    ]
    others = [
        normal(1, torch.tensor([3]), s, (6, 200))[0] for s in (Stream.INITIAL, Stream.CONTENT)
    ]
    correlation = torch.corrcoef(torch.cat(paths + others))
    correlation -= torch.eye(len(correlation))
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(200)


@settings(max_examples=25, deadline=None)
@given(ticks=st.lists(st.integers(0, 40_000), min_size=3, max_size=8), cell=st.integers(1, 9_000))
def test_increments_add_up(ticks, cell):
    ticks = torch.tensor(sorted(ticks)).expand(3, -1)
    path = Brownian(3, SERIAL, (3,), cell)
    ends = torch.stack([ticks[:, 0], ticks[:, -1]], 1)
    parts = path.increments(ticks).double().sum(1)
    torch.testing.assert_close(parts, path.increments(ends)[:, 0].double(), atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(halvings=st.integers(1, 6))
def test_more_steps_walk_the_same_path(halvings):
    path = Brownian(3, SERIAL, (2, 3), CELL)
    few, many = 8, 8 * 2**halvings
    coarse = path.increments((torch.arange(few + 1) * CELL).expand(3, -1))
    fine = path.increments((torch.arange(many + 1) * (CELL // 2**halvings)).expand(3, -1))
    torch.testing.assert_close(fine.view(3, few, -1, 2, 3).sum(2), coarse, atol=1e-6, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(6)), split=st.integers(1, 5), aligned=st.booleans())
def test_clip_has_the_same_path_in_any_batch(order, split, aligned):
    serial = torch.arange(6) * 7 + 1
    steps = torch.randint(0, 3 * CELL, (6, 5), generator=torch.Generator().manual_seed(1))
    ticks = (steps // CELL * CELL if aligned else steps).cumsum(1)
    whole = Brownian(4, serial, (5,), CELL).increments(ticks)
    for part in (torch.tensor(order[:split]), torch.tensor(order[split:])):
        alone = Brownian(4, serial[part], (5,), CELL).increments(ticks[part])
        assert torch.equal(alone, whole[part])


def test_area_under_the_path_has_its_law_and_adds_up():
    path = Brownian(5, torch.arange(500), (20,), CELL)
    ticks = (torch.arange(5) * CELL).expand(500, -1)
    moves, areas = path.increments(ticks), path.areas(ticks)
    d = CELL / TICKS_PER_UNIT
    covariance = torch.cov(torch.stack([moves.flatten(), areas.flatten()]).double())
    want = torch.tensor([[d, d**2 / 2], [d**2 / 2, d**3 / 3]], dtype=torch.float64)
    torch.testing.assert_close(covariance, want, rtol=0.03, atol=0)
    whole = path.areas(ticks[:, [0, 4]])[:, 0]
    start = moves.cumsum(1) - moves
    torch.testing.assert_close(whole, (areas + start * d).sum(1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("ticks", [[-5, 3], [9, 3]])
def test_times_out_of_order_are_refused(ticks):
    with pytest.raises(UserError, match="start at 0 or later and never fall"):
        Brownian(1, SERIAL[:1], (1,), CELL).increments(torch.tensor([ticks]))


def test_area_inside_a_cell_is_refused():
    with pytest.raises(UserError, match="steps of whole cells"):
        Brownian(1, SERIAL[:1], (1,), CELL).areas(torch.tensor([[0, CELL // 2]]))
