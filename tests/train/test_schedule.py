"""Schedules are functions of clips, whatever a step holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.config import Config, parse
from sdevid.train.schedule import kl_weight, learning_rate

TOTAL = 10_000


def config(**settings: object) -> Config:
    return parse({"batch_size": 10, "learning_rate": 1e-3, **settings})


def test_learning_rate_warms_up_and_ends_at_its_ratio():
    settings = config(warmup_clips=1_000, final_learning_rate_ratio=0.1)
    assert learning_rate(0, TOTAL, settings) == pytest.approx(1e-5)
    assert learning_rate(490, TOTAL, settings) == pytest.approx(5e-4)
    assert learning_rate(1_000, TOTAL, settings) == pytest.approx(1e-3)
    assert learning_rate(5_500, TOTAL, settings) == pytest.approx(5.5e-4)  # half of the cosine
    assert learning_rate(TOTAL, TOTAL, settings) == pytest.approx(1e-4)
    assert learning_rate(2 * TOTAL, TOTAL, settings) == pytest.approx(1e-4)


@given(clips=st.integers(0, 2 * TOTAL), warmup=st.integers(0, 2 * TOTAL))
def test_learning_rate_stays_above_zero_and_within_its_peak(clips, warmup):
    rate = learning_rate(clips, TOTAL, config(warmup_clips=warmup))
    assert 0 < rate <= 1e-3


def test_without_a_warmup_the_first_step_has_the_peak_rate():
    assert learning_rate(0, TOTAL, config(warmup_clips=0)) == 1e-3


def test_kl_weight_rises_in_a_line_and_is_then_exactly_one():
    settings = config(kl_warmup_fraction=0.2, kl_weight_start=0.01)
    assert kl_weight(0, TOTAL, settings) == pytest.approx(0.01)
    assert kl_weight(1_000, TOTAL, settings) == pytest.approx(0.505)
    assert all(kl_weight(clips, TOTAL, settings) == 1.0 for clips in (2_000, 2_001, TOTAL, 10**9))


def test_kl_weight_is_one_from_the_start_without_a_rise():
    assert kl_weight(0, TOTAL, config(kl_warmup_fraction=0.0)) == 1.0
