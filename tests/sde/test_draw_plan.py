"""What a step draws on a device is made in one launch, and no number changes by it."""

import pytest
import torch
from sdevid_kernels import philox

from sdevid.sde import noise
from sdevid.sde.draw_plan import DrawPlan
from sdevid.sde.noise import Stream, normal, uniform

SEED = 11


@pytest.fixture
def launches(monkeypatch):
    """How many draws each launch makes; clips on a CPU count as on a device."""
    made = []
    together = philox.together

    def counted(seed, serial, draws, setting="auto"):
        made.append(len(draws))
        return together(seed, serial, draws, setting)

    monkeypatch.setattr(noise, "on_host", lambda _serial: False)
    monkeypatch.setattr(philox, "together", counted)
    return made


def ask(serial):
    return [
        normal(SEED, serial, Stream.INITIAL, (2, 3)),
        uniform(SEED, serial, Stream.CONTEXT, (4,)),
        normal(SEED, serial, Stream.CONTENT, (5,)),
    ]


def test_second_step_draws_once_and_the_same(launches):
    plan = DrawPlan()
    for number in range(3):
        serial = torch.arange(3) + 3 * number
        alone = ask(serial)
        launches.clear()
        with plan.step(SEED, serial):
            planned = ask(serial)
        assert launches == ([1, 1, 1] if number == 0 else [3])
        assert all(torch.equal(a, b) for a, b in zip(alone, planned, strict=True))


def test_a_draw_that_was_not_foreseen_is_made_and_foreseen_next(launches):
    plan, serial = DrawPlan(), torch.arange(2)
    with plan.step(SEED, serial):
        ask(serial)
    for want in ([3, 1], [4]):
        launches.clear()
        with plan.step(SEED, serial):
            ask(serial)
            uniform(SEED, serial, Stream.TIME, (1,))
        assert launches == want


def test_other_clips_another_seed_and_a_second_time_are_drawn_by_themselves(launches):
    plan, serial, others = DrawPlan(), torch.arange(2), torch.arange(2) + 5
    alone = [normal(SEED, others, Stream.CONTENT, (5,)), normal(1, serial, Stream.CONTENT, (5,))]
    for _ in range(2):
        launches.clear()
        with plan.step(SEED, serial):
            first = normal(SEED, serial, Stream.CONTENT, (5,))
            kept = first.clone()
            first.zero_()
            again = normal(SEED, serial, Stream.CONTENT, (5,))
            elsewhere = [
                normal(SEED, others, Stream.CONTENT, (5,)),
                normal(1, serial, Stream.CONTENT, (5,)),
            ]
        assert torch.equal(again, kept)
        assert all(torch.equal(a, b) for a, b in zip(alone, elsewhere, strict=True))
        assert launches == [1, 1, 1, 1]


def test_a_step_that_fails_leaves_the_plan_as_it_was(launches):
    plan, serial = DrawPlan(), torch.arange(2)
    with plan.step(SEED, serial):
        ask(serial)
    with pytest.raises(ZeroDivisionError), plan.step(SEED, serial):
        raise ZeroDivisionError
    launches.clear()
    with plan.step(SEED, serial):
        ask(serial)
    assert launches == [3]
