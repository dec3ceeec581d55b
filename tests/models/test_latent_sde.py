import factories
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdevid.config import parse
from sdevid.models.latent_sde import LatentSDE, solver_grid
from sdevid.types import frame_ticks

SMALL = factories.settings()
VECTOR = factories.VECTOR
MAP = factories.MAP


def model(sde, **more):
    torch.manual_seed(0)
    result = LatentSDE(parse(SMALL | {"sde": sde} | more))
    return factories.shake(result)


@pytest.mark.parametrize("sde", [VECTOR, MAP, VECTOR | {"noise": "diagonal"}])
def test_video_depends_on_seed_and_serial_not_on_the_batch(sde):
    result = model(sde)
    ticks = frame_ticks(5).expand(4, -1)
    together = result.sample(ticks, seed=3, serial=torch.arange(4))
    alone = result.sample(ticks[:1], seed=3, serial=torch.tensor([2]))
    assert together.shape == (4, 5, 1, 16, 16)
    torch.testing.assert_close(alone[0], together[2])
    other = result.sample(ticks[:1], seed=4, serial=torch.tensor([2]))
    assert (other - alone).abs().max() > 1e-3


@pytest.mark.parametrize("sde", [VECTOR, MAP])
def test_context_changes_the_video_at_any_times(sde):
    result = model(sde)
    context, times = torch.rand(2, 3, 1, 16, 16), frame_ticks(6).expand(2, -1)
    given_frames = {"context": context, "context_ticks": times[:, :3]}
    serial = torch.arange(2)
    carried_on = result.sample(times[:, 2:], seed=0, serial=serial, **given_frames)
    free = result.sample(times[:, 2:], seed=0, serial=serial)
    assert carried_on.shape == (2, 4, 1, 16, 16)
    assert (carried_on - free).abs().max() > 1e-3


def test_driftless_path_is_the_same_at_twice_the_frame_rate():
    result = model(VECTOR)
    torch.nn.init.zeros_(result.prior.drift.last.weight)
    torch.nn.init.zeros_(result.prior.drift.last.bias)
    serial = torch.arange(2)
    slow = result.sample(frame_ticks(5).expand(2, -1), seed=1, serial=serial)
    fast = result.sample(frame_ticks(9, 2).expand(2, -1), seed=1, serial=serial)
    torch.testing.assert_close(fast[:, ::2], slow, rtol=1e-4, atol=1e-5)
    assert (fast[:, 1::2] - slow[:, 1:]).abs().max() > 1e-3


def test_smaller_steps_converge_to_one_video():
    result = model(VECTOR | {"hidden": 32})
    ticks, serial = frame_ticks(4).expand(8, -1), torch.arange(8)
    videos = [
        result.sample(ticks, seed=1, serial=serial, steps_per_frame=n) for n in (2, 8, 32, 128)
    ]
    errors = [(video - videos[-1]).abs().mean() for video in videos[:-1]]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


@settings(max_examples=50)
@given(
    gaps=st.lists(st.lists(st.integers(0, 50), min_size=2, max_size=2), min_size=1, max_size=5),
    cell=st.integers(1, 30),
)
def test_solver_grid_holds_every_time_in_steps_within_a_cell(gaps, cell):
    ticks = torch.tensor([[0, 0], *gaps]).cumsum(0).T.contiguous()
    grid, saved = solver_grid(ticks, cell, None)
    assert torch.equal(grid[:, saved], ticks)
    steps = grid.diff(dim=1)
    assert (steps >= 0).all()
    assert (steps <= cell).all()


@pytest.mark.parametrize("sde", [VECTOR, MAP])
def test_unobserved_frame_changes_nothing_of_the_history(sde):
    result = model(sde)
    tokens = result.encoder(torch.rand(2, 5, 1, 16, 16), torch.arange(5.0).expand(2, -1)).tokens
    times = torch.rand(2, 5)
    seen = torch.tensor([[True, True, False, True, False]]).expand(2, 5)
    history = result.temporal(tokens, times, seen)
    tokens = torch.where(seen[:, :, None, None], tokens, 100.0)
    times = torch.where(seen, times, -3.0)
    changed = result.temporal(tokens, times, seen)
    torch.testing.assert_close(changed.summary, history.summary)
    torch.testing.assert_close(changed.tokens[seen], history.tokens[seen])
    fewer = result.temporal(tokens[:, :2], times[:, :2], seen[:, :2])
    assert (fewer.summary - history.summary).abs().max() > 1e-3
