"""Numbers as the page says them."""

import pytest

from sdevid.report.words import duration, measured, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (0.0, "0"),
        (0.35325, "0.353"),
        (16.0, "16.0"),
        (10994.06, "10,994"),
        (-2.5, "\u22122.50"),
        (1.0e-7, "1e\u221207"),
    ],
)
def test_number_is_written_with_its_digits(value, text):
    assert number(value) == text


def test_mean_has_the_places_of_its_error():
    assert measured({"mean": 16.8215, "standard_error": 0.1004}) == "16.82 <small>± 0.10</small>"
    assert measured({"mean": 10994.06, "standard_error": 6.735}) == "10,994.1 <small>± 6.7</small>"
    assert measured({"mean": 2.0, "standard_error": None}) == "2.00"
    assert measured({"mean": None, "standard_error": None}) == measured(None) == "\u2013"


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (126, "2 min 6 s"), (7260, "2 h 1 min")]
)
def test_duration_is_written_in_its_largest_units(seconds, text):
    assert duration(seconds) == text
