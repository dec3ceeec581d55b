"""The recovery policy, as a pure function of the losses that it is shown."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.config import FaultsConfig
from sdevid.train.health.recovery_policy import RecoveryPolicy, Verdict

APPLY, SKIP, ROLL_BACK, STOP = Verdict
BAD = math.nan

settings = st.builds(
    FaultsConfig,
    skips=st.integers(1, 4),
    rollbacks=st.integers(0, 3),
    spike=st.sampled_from([0.0, 5.0]),
    window=st.integers(1, 8),
)
figures = st.sampled_from([1.0, 1.5, 2.0, 3.0, 50.0, math.nan, math.inf, -math.inf])
history = st.lists(st.tuples(figures, figures), max_size=40)


def climb(policy: RecoveryPolicy, steps, first: int = 1) -> list[Verdict]:
    """Verdicts up to the end or the first STOP; each return goes to the last good step."""
    verdicts = []
    for number, (loss, norm) in enumerate(steps, start=first):
        verdicts.append(policy.verdict(number, loss, norm))
        if verdicts[-1] is ROLL_BACK:
            policy.returned_to(policy.good_step)
        if verdicts[-1] is STOP:
            break
    return verdicts


@given(settings, history)
def test_step_that_is_not_finite_is_skipped(faults, steps):
    for (loss, norm), verdict in zip(steps, climb(RecoveryPolicy(faults), steps), strict=False):
        if not math.isfinite(loss + norm):
            assert verdict is not APPLY
        elif not faults.spike:
            assert verdict is APPLY


@given(settings, history)
def test_every_kth_fault_in_a_row_climbs_and_no_other(faults, steps):
    in_a_row = 0
    for verdict in climb(RecoveryPolicy(faults), steps):
        in_a_row = 0 if verdict is APPLY else in_a_row + 1
        climbs = in_a_row > 0 and in_a_row % faults.skips == 0
        assert (verdict in (ROLL_BACK, STOP)) == climbs


@given(settings, st.integers(1, 30))
def test_faults_without_end_stop_after_the_stated_returns(faults, more):
    policy = RecoveryPolicy(faults)
    needed = faults.skips * (faults.rollbacks + 1)
    verdicts = climb(policy, [(BAD, 1.0)] * (needed + more))
    assert len(verdicts) == needed
    assert verdicts.count(ROLL_BACK) == faults.rollbacks
    assert verdicts[-1] is STOP


@given(settings, history, st.integers(0, 40))
def test_resume_climbs_on_from_where_it_was(faults, steps, cut):
    whole = RecoveryPolicy(faults)
    expected = climb(whole, steps)
    first = RecoveryPolicy(faults)
    before = climb(first, steps[:cut])
    second = RecoveryPolicy(faults, json.loads(json.dumps(first.state())))
    after = [] if STOP in before else climb(second, steps[cut:], first=cut + 1)
    assert before + after == expected


@given(settings, history)
def test_return_never_goes_to_a_faulty_step_or_past_it(faults, steps):
    policy, last_good = RecoveryPolicy(faults), 0
    for number, (loss, norm) in enumerate(steps, start=1):
        verdict = policy.verdict(number, loss, norm)
        last_good = number if verdict is APPLY else last_good
        assert policy.good_step == last_good


def test_second_return_without_a_good_step_goes_further_back():
    policy = RecoveryPolicy(FaultsConfig(skips=1, rollbacks=5))
    climb(policy, [(1.0, 1.0)] * 10)
    assert policy.verdict(11, BAD, 1.0) is ROLL_BACK
    policy.returned_to(8)
    assert policy.verdict(12, BAD, 1.0) is ROLL_BACK
    assert policy.good_step == 7


def test_return_prefers_a_checkpoint_that_was_due():
    policy = RecoveryPolicy(FaultsConfig(skips=2, rollbacks=5))
    climb(policy, [(1.0, 1.0)] * 5)
    assert policy.return_point == 5
    assert policy.may_save(5, due=True)
    climb(policy, [(1.0, 1.0)] * 5, first=6)
    assert policy.return_point == 5
    assert policy.may_save(10, due=True)
    climb(policy, [(BAD, 1.0)], first=11)
    assert policy.return_point == 10
    policy.returned_to(10)
    assert policy.return_point == 5


def test_save_due_in_a_bad_stretch_waits_for_a_good_step():
    policy = RecoveryPolicy(FaultsConfig(skips=4))
    climb(policy, [(1.0, 1.0), (BAD, 1.0)])
    assert not policy.may_save(2, due=True)
    climb(policy, [(BAD, 1.0)], first=3)
    assert not policy.may_save(3, due=False)
    again = RecoveryPolicy(FaultsConfig(skips=4), policy.state())
    climb(again, [(1.0, 1.0)], first=4)
    assert again.may_save(4, due=False)
    climb(again, [(1.0, 1.0)], first=5)
    assert not again.may_save(5, due=False)


def test_returns_are_forgiven_after_a_window_of_good_steps():
    policy = RecoveryPolicy(FaultsConfig(skips=1, rollbacks=1, window=3))
    bad, good = (BAD, 1.0), (1.0, 1.0)
    assert climb(policy, [bad, good, good, good, bad]) == [
        ROLL_BACK,
        APPLY,
        APPLY,
        APPLY,
        ROLL_BACK,
    ]
    assert climb(policy, [good, good, bad]) == [APPLY, APPLY, STOP]


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.floats(-100, 100))
def test_spike_lies_above_median_and_mad_of_a_full_window(losses, loss):
    faults = FaultsConfig(skips=2, spike=4.0, window=len(losses))
    policy = RecoveryPolicy(faults, {"losses": losses})
    middle = statistics.median(losses)
    sd = 1.4826 * statistics.median(abs(x - middle) for x in losses)
    limit = middle + 4.0 * max(sd, 1e-6 * abs(middle))
    assert policy.verdict(1, loss, 1.0) is (SKIP if loss > limit else APPLY)
    assert (loss in policy.losses) == (loss <= limit or loss in losses)


def test_spike_needs_a_full_window_and_detection_on():
    early = RecoveryPolicy(FaultsConfig(spike=3.0, window=5))
    assert climb(early, [(1.0, 1.0)] * 4 + [(1e9, 1.0)]) == [APPLY] * 5
    off = RecoveryPolicy(FaultsConfig(window=2))
    assert climb(off, [(1.0, 1.0)] * 4 + [(1e9, 1.0)]) == [APPLY] * 5


@pytest.mark.parametrize(
    ("loss", "norm", "message"),
    [(math.nan, 1.0, "the loss is nan"), (1.0, math.inf, "the gradient's norm is inf")],
)
def test_fault_is_named(loss, norm, message):
    policy = RecoveryPolicy(FaultsConfig())
    policy.verdict(1, loss, norm)
    assert policy.fault == message
