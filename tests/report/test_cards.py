"""The cards at the head of the page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdevid.report.cards import summary
from sdevid.report.record import read

PROTOCOL = {"clips": 16, "split": "val"}


def figure(mean: float, half: float = 0.0) -> dict[str, Any]:
    return {"mean": mean, "standard_error": half / 2, "interval": [mean - half, mean + half]}


@pytest.fixture
def cards(tmp_path):
    """The cards of a run with these results."""

    (tmp_path / "metrics.jsonl").touch()

    def build(results: dict[str, Any]) -> str:
        whole = {"protocol": PROTOCOL, "provenance": {}, **results}
        (tmp_path / "results.json").write_text(json.dumps(whole), encoding="utf-8")
        return summary(read(tmp_path))

    return build


def psnr(leads: list[dict[str, Any]] | None) -> dict[str, Any]:
    own = {"mean": 20.0, "by_frame": [21.0, 19.0]}
    own |= {} if leads is None else {"lead_by_frame": leads}
    rival = {"mean": 15.0, "by_frame": [20.0, 19.5]}
    forecasts = {"mean_of_samples": own, "copy_last_frame": rival, "mean_frame": rival}
    return {"prediction": {"psnr": forecasts}}


def test_prediction_names_its_worst_frame_with_an_interval(cards):
    text = cards(psnr([figure(1.0, 0.2), figure(-0.5, 0.8)]))
    assert "Worst at frame 2 ahead: 0.500 dB behind the better baseline" in text
    assert "(95 % interval of the lead \u22121.30 to 0.300)" in text
    assert "finding wrong" not in text


def test_prediction_that_is_surely_behind_at_a_frame_is_wrong(cards):
    assert "finding wrong" in cards(psnr([figure(1.0, 0.2), figure(-0.5, 0.3)]))


def test_results_without_intervals_still_name_the_worst_frame(cards):
    text = cards(psnr(None))
    assert "Worst at frame 2 ahead: 0.500 dB behind the better baseline" in text
    assert "interval" not in text


def test_bound_has_an_interval_and_the_best_checkpoint_beside_it(cards):
    history = [{"clips": n, "elbo": figure(value)} for n, value in ((10, 900.0), (20, 800.0))]
    text = cards({"elbo": {"elbo": figure(800.0, 30.0)}, "elbo_over_time": history})
    assert "(95 % interval 770 to 830)" in text
    assert "compare it with runs of the same data, frames and likelihood" in text
    assert "The best of this run's 2 checkpoints: 900, at 10 clips" in text.replace("&#x27;", "'")


def futures(shares: list[dict[str, Any]]) -> dict[str, Any]:
    def channel(crps: float) -> dict[str, Any]:
        by_lead = {"mean": crps, "by_lead": [crps, crps]}
        return {"crps": {"1": by_lead}, "coverage": {"0.9": {"mean": 0.9}}}

    forecasts = {
        "model": {"channels": [channel(1.0)]},
        "persistence": {"channels": [channel(1.2)], "model_crps_share_by_lead": [shares]},
    }
    return {"futures": {"forecasts": forecasts, "unit": "grey levels", "frame_interval": 0.5}}


def test_futures_name_the_worst_lead_time_with_an_interval(cards):
    text = cards(futures([figure(0.8, 0.1), figure(1.1, 0.2)]))
    assert "Worst at 1 s ahead: 1.10 of the baseline" in text
    assert "(95 % interval 0.900 to 1.30)" in text
    assert "finding wrong" not in text
    assert "finding wrong" in cards(futures([figure(0.8, 0.1), figure(1.1, 0.05)]))
