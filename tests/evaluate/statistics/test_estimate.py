"""Means and their standard errors."""

import json

import numpy as np
import pytest

from sdevid.evaluate.progress import evenly
from sdevid.evaluate.statistics.estimate import mean_over


def test_mean_and_error_of_units():
    estimate = mean_over(np.array([1.0, 2.0, 3.0, np.nan]))
    assert estimate.mean == 2.0
    assert estimate.standard_error == pytest.approx(1 / np.sqrt(3))


def test_unknown_estimate_is_null_in_json():
    assert (
        json.dumps(mean_over(np.array([4.0])).as_json()) == '{"mean": 4.0, "standard_error": null}'
    )
    assert mean_over(np.array([np.nan])).as_json() == {"mean": None, "standard_error": None}


def test_clips_are_chosen_at_even_distances():
    assert list(evenly(3, 10)) == [0, 3, 6]
    assert list(evenly(20, 4)) == [0, 1, 2, 3]
