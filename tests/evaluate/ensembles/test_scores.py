"""Scores of forecasts of whole clips, and their means over source videos."""

import numpy as np
import pytest

from sdevid.evaluate.ensembles.baselines import Forecast
from sdevid.evaluate.ensembles.scores import BySource, clip_totals, spectra
from sdevid.evaluate.statistics.ensemble import LEVELS

AHEAD, SIDE = 3, 8


def field(rng, *members):
    return rng.normal(size=(*members, AHEAD, SIDE, SIDE, 1)).astype(np.float32)


def scored(spread, clips=40, members=16, sources=None, thresholds=()):
    """Ensembles of standard normals, `spread` times as wide, against standard normals."""
    rng = np.random.default_rng(0)
    totals = [
        clip_totals(
            Forecast(spread * field(rng, members), "ensemble"), field(rng), thresholds, seed
        )
        for seed in range(clips)
    ]
    return BySource(totals, sources or [str(k) for k in range(clips)])


def test_calibrated_ensemble_has_spread_as_error_and_coverage():
    scores = scored(1.0)
    ratio = scores.ratio("variance", "squared_error", 0, root=True)
    assert ratio["mean"] == pytest.approx(1, abs=0.05)
    for level in LEVELS:
        share = scores.ratio(f"covered_{level:g}", "pixels", 0)
        assert share["mean"] == pytest.approx(level, abs=0.03)
    assert scores.ranks(0)["p_value"] > 1e-3
    assert len(ratio["by_lead"]) == AHEAD


def test_narrow_ensemble_is_told_by_every_measure():
    scores = scored(0.3)
    assert scores.ratio("variance", "squared_error", 0, root=True)["mean"] < 0.5
    assert scores.ratio("covered_0.9", "pixels", 0)["mean"] < 0.6
    assert scores.ranks(0)["p_value"] < 1e-6
    assert (
        scores.ratio("crps_1", "pixels_1", 0)["mean"]
        > (scored(1.0).ratio("crps_1", "pixels_1", 0)["mean"])
    )


def test_pooling_keeps_crps_of_a_shift():
    """All pixels off by two: means over blocks are off by two as well."""
    observed = np.zeros((AHEAD, SIDE, SIDE, 1), np.float32)
    totals = clip_totals(Forecast(observed[None] + 2, "point"), observed, (), 0)
    scores = BySource([totals], ["film"])
    for side in (1, 2, 4, 8):
        assert scores.ratio(f"crps_{side}", f"pixels_{side}", 0)["mean"] == pytest.approx(2)
    assert "ranks" not in scores


def test_masked_pixels_do_not_count():
    rng = np.random.default_rng(1)
    observed, samples = field(rng), field(rng, 8)
    masked = observed.copy()
    masked[:, :, 4:] = np.nan
    totals = clip_totals(Forecast(samples, "ensemble"), masked, (0.5,), 0)
    half = clip_totals(Forecast(samples[:, :, :, :4], "ensemble"), observed[:, :, :4], (0.5,), 0)
    for key in ("crps_1", "crps_2", "squared_error", "variance", "pixels", "hits_0.5"):
        np.testing.assert_allclose(totals[key], half[key], err_msg=key)
    assert totals["ranks"].sum() == totals["pixels"].sum() == AHEAD * SIDE * SIDE / 2


def test_intervals_are_over_source_videos_and_not_clips():
    """Forty clips of two films that differ: the error is that of two films, not of forty clips."""
    rng = np.random.default_rng(2)
    observed = np.zeros((AHEAD, SIDE, SIDE, 1), np.float32)
    totals = [
        clip_totals(
            Forecast(observed[None] + shift + field(rng, 1) / 100, "point"), observed, (), 0
        )
        for shift in [1] * 20 + [3] * 20
    ]
    by_clip = BySource(totals, [str(k) for k in range(40)]).ratio("crps_1", "pixels_1", 0)
    by_film = BySource(totals, ["a"] * 20 + ["b"] * 20).ratio("crps_1", "pixels_1", 0)
    assert by_clip["mean"] == pytest.approx(by_film["mean"])
    assert by_film["standard_error"] > 3 * by_clip["standard_error"]


def test_one_source_has_no_interval():
    assert scored(1.0, sources=["film"] * 40).ratio("crps_1", "pixels_1", 0) == {
        "mean": pytest.approx(0.56, abs=0.03),
        "standard_error": None,
        "by_lead": [pytest.approx(0.56, abs=0.05)] * AHEAD,
    }


def test_events_by_hand():
    observed = np.zeros((AHEAD, SIDE, SIDE, 1), np.float32)
    observed[:, 0] = 5.0  # 8 pixels of 64
    samples = np.zeros((4, *observed.shape), np.float32)
    samples[:3, :, 0, :4] = 5.0  # three of four members, on half of the row
    samples[:3, :, 1, :2] = 5.0  # and on two pixels beside it
    totals = clip_totals(Forecast(samples, "ensemble"), observed, (1.0,), 0)
    scores = BySource([totals, totals], ["a", "b"])
    shares = {
        "csi": scores.shares("hits_1", ("misses_1", "false_alarms_1"), 0),
        "pod": scores.shares("hits_1", ("misses_1",), 0),
        "far": scores.shares("false_alarms_1", ("hits_1",), 0),
    }
    want = {"csi": 4 / 10, "pod": 4 / 8, "far": 2 / 6}
    assert {key: share["mean"] for key, share in shares.items()} == pytest.approx(want)
    forecasts, probability, events = totals["reliability_1"][0, 0]
    assert forecasts[7] == 6  # probability 3/4 at six pixels
    assert events[7] == 4
    assert probability[7] == pytest.approx(4.5)


def test_spectrum_of_a_perfect_forecast_is_the_outcomes():
    observed = field(np.random.default_rng(3))
    curves = spectra(Forecast(observed[None], "point"), observed)
    np.testing.assert_allclose(curves["spectrum"], curves["spectrum_observed"])
    assert curves["spectrum"].shape == (AHEAD, 1, SIDE // 2)
