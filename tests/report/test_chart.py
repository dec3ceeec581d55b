"""Charts are well-formed SVG that shows what it is given."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.report.chart import Series, chart, ticks, told


def test_every_kind_of_series_gives_well_formed_markup():
    drawn = chart(
        "A < B & C",
        [
            Series("line", [0, 1, 2], [1.0, None, 3.0]),
            Series("dashed", [0, 1, 2], [1.0, 2.0, float("nan")], "exact", "dashed"),
            Series("points", [0, 1, 2], [1.0, 2.0, 3.0], "real", "points", [0.1, None, 0.2]),
        ],
        "clips",
        note="a note",
    )
    figure = ElementTree.fromstring(drawn)
    assert len(list(figure.iter("circle"))) == 3
    assert len(list(figure.iter("path"))) == 2
    assert "A < B & C" in "".join(figure.itertext())


def test_a_gap_lifts_the_pen():
    drawn = chart("t", [Series("", [0, 1, 2, 3, 4], [1.0, 2.0, None, 3.0, 4.0])], "x")
    path = next(ElementTree.fromstring(drawn).iter("path")).get("d")
    assert path.count("M") == 2
    assert path.count("L") == 2


@pytest.mark.parametrize("values", [[], [None, None], [float("nan")] * 2])
def test_nothing_to_show_is_said(values):
    drawn = chart("Loss", [Series("", list(range(len(values))), values)], "x")
    assert "Nothing measured" in drawn


def test_one_point_and_a_flat_line_are_drawn():
    for values in ([3.0], [0.0, 0.0]):
        ElementTree.fromstring(chart("t", [Series("", list(range(len(values))), values)], "x"))


@given(low=st.floats(-1e6, 1e6), length=st.floats(1e-3, 1e6), most=st.integers(3, 8))
def test_ticks_are_few_even_and_inside(low, length, most):
    found = ticks(low, low + length, most)
    assert 1 <= len(found) <= most + 1
    assert all(low - 1e-6 * length <= tick <= low + 1.000001 * length for tick in found)
    steps = {round((b - a) / length, 6) for a, b in pairwise(found)}
    assert len(steps) <= 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.05, "0.05"), (9000, "9000"), (25000, "25k"), (-3, "\u22123"), (1.2e6, "1.2M")],
)
def test_numbers_on_axes(value, text):
    assert told(value) == text
    assert math.isfinite(value)
