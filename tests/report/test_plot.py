"""What a plot hands to the page."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from sdevid.report.plot import Series, embedded, plot


def data(figure: str) -> dict:
    return json.loads(re.search(r"<script[^>]*>(.*?)</script>", figure, re.DOTALL)[1])


@given(st.text())
def test_embedded_text_closes_no_element_and_reads_back(text):
    inside = embedded({"name": text})
    assert "<" not in inside
    assert json.loads(inside) == {"name": text}


def test_plot_sorts_by_x_and_leaves_gaps_at_nan():
    shown = data(plot("t", [Series("a", [3.0, 1.0, 2.0], [float("nan"), 5.0, None])], "x"))
    (curve,) = shown["series"]
    assert (curve["x"], curve["y"]) == ([1.0, 2.0, 3.0], [5.0, None, None])


def test_plot_of_nothing_says_so():
    assert "Nothing measured." in plot("t", [Series("a", [1.0], [None])], "x")


def test_plot_summary_is_read_to_who_sees_no_picture():
    assert 'aria-label="Loss: run 0.5"' in plot("Loss", [Series("run", [1, 2], [1.0, 0.5])], "x")
