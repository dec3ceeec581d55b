"""Floating-point operations of a clip, against the arithmetic of its layers."""

from __future__ import annotations

import factories
import pytest

from sdevid.config import parse
from sdevid.train.summary.flops import count_flops


def config(**sde):
    return parse(factories.settings(sde=factories.VECTOR | sde))


def test_solver_steps_cost_alike():
    """Solver steps cost alike: two more a frame add what two more before them added."""
    few, more = (count_flops(config(depth=2, steps_per_frame=n)).forward for n in (1, 3))
    again = count_flops(config(depth=2, steps_per_frame=5)).forward
    assert more > few
    assert again - more == more - few


def test_backward_costs_about_twice_forward():
    flops = count_flops(parse(factories.settings(sde=factories.MAP)))
    assert flops.backward == pytest.approx(2 * flops.forward, rel=0.1)


def test_text_is_counted_too():
    plain = count_flops(config())
    told = count_flops(parse(factories.settings(sde=factories.VECTOR, text={"encoder": "bytes"})))
    assert told.forward > plain.forward
