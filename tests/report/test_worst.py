"""The worst bin of a curve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.report.worst import worst_bin


def grid(truth, generated, error):
    x = [float(i) for i in range(len(truth))]
    return {
        "truth": {"position": x, "g": truth},
        "generated": {"position": x, "g": generated, "g_error": error},
    }


def test_worst_bin_is_the_one_surely_furthest_not_the_noisiest():
    result = worst_bin(
        grid([1.0, 1.0, 1.0], [1.1, 1.6, 3.0], [0.01, 0.05, 5.0]), "g", relative=True
    )
    assert (result.position, result.share) == (1.0, pytest.approx(0.6))
    assert result.is_wrong


def test_worst_bin_within_its_interval_is_not_called_wrong():
    assert not worst_bin(grid([1.0], [1.3], [0.2]), "g", relative=True).is_wrong


def test_worst_bin_through_zero_is_relative_to_the_largest():
    result = worst_bin(grid([-2.0, 0.0, 2.0], [-2.0, 1.0, 2.0], [0.0] * 3), "g", relative=False)
    assert (result.position, result.share) == (1.0, 0.5)


def test_worst_bin_without_a_common_bin_is_none():
    assert worst_bin(grid([None], [1.0], [0.1]), "g", relative=True) is None


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=6), st.floats(-0.9, 3))
def test_worst_bin_of_a_scaled_curve_is_the_scale(truth, share):
    result = worst_bin(
        grid(truth, [y * (1 + share) for y in truth], [0.0] * len(truth)), "g", relative=True
    )
    assert result.share == pytest.approx(share)
