"""The challenge's scores know truth from a constant, and tracks give back the motion they show."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sdevid.cli import main
from sdevid.evaluate.andi import metric
from sdevid.evaluate.andi.metric import Field, answer
from sdevid.evaluate.andi.motion import SHORTEST, fit, segments
from sdevid.evaluate.andi.scores import (
    FREE,
    IMMOBILE,
    Segments,
    ensemble_scores,
    one_state,
    single_scores,
)

PERFECT = {"change_rmse": 0, "change_jaccard": 1, "alpha_mae": 0, "K_msle": 0, "state_f1": 1}


def walk(rng, steps: int, coefficient: float):
    """Brownian motion of 2 K a step along each axis."""
    return np.cumsum(rng.normal(0, np.sqrt(2 * coefficient), (steps, 2)), axis=0)


def test_fit_of_brownian_motion_has_its_exponent_and_coefficient():
    rng = np.random.default_rng(0)
    alpha, coefficient = np.mean([fit(walk(rng, 200, 0.6)) for _ in range(200)], axis=0)
    assert alpha == pytest.approx(1, abs=0.03)
    assert coefficient == pytest.approx(0.6, rel=0.03)


def test_fit_of_straight_motion_is_ballistic():
    alpha, coefficient = fit(np.arange(50)[:, None] * np.array([0.3, 0.4]))
    assert alpha == pytest.approx(1.99)  # the most that the challenge knows
    assert coefficient == pytest.approx(0.25 / 4, rel=0.05)


def test_change_of_the_coefficient_is_found_at_its_frame():
    rng = np.random.default_rng(1)
    steps = np.concatenate([rng.normal(0, 1.4, (59, 2)), rng.normal(0, 0.05, (100, 2))])
    found = segments(np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)]))
    change, end = found.changes
    assert end == 160
    assert abs(change - 60) <= 1  # the first frame reached by a slow step
    np.testing.assert_allclose(found.K, [0.98, 0.05**2 / 2], rtol=0.4)


def test_steady_motion_has_no_change_points():
    rng = np.random.default_rng(2)
    found = [segments(walk(rng, 200, 1.0)) for _ in range(100)]
    assert sum(len(one.changes) > 1 for one in found) <= 2


def test_trembling_is_immobile_and_a_short_track_is_whole():
    rng = np.random.default_rng(3)
    assert segments(rng.normal(0, 0.1, (100, 2))).state == [IMMOBILE]
    short = segments(walk(rng, 2 * SHORTEST, 1.0))
    assert (short.changes, short.state) == ([2 * SHORTEST], [FREE])


def test_ensemble_weighs_segments_by_their_length():
    two = [Segments([30, 40], [1.0, 0.5], [2.0, 1.0], [FREE, FREE])]
    alpha, variance, coefficient, _, weight = one_state(two)[:, 0]
    assert alpha == pytest.approx(0.875)
    assert variance == pytest.approx(0.75 * 0.25 * 0.5**2)
    assert (coefficient, weight) == (1.75, 40)


def test_a_tracker_that_is_not_installed_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(metric.importlib.util, "find_spec", lambda _: None)
    entry = {"vips": 1, "sources": {}, "left_out": metric._left_out()}
    (row,) = metric.rows({"andi": entry})
    assert row.name == "trackpy"
    assert "sdevid[trackpy]" in row.note


def test_other_shards_and_models_are_refused_by_name():
    index = SimpleNamespace(dataset={"dataset": "brownian"})
    assert "of brownian, not of andi" in metric.needs(SimpleNamespace(truth={}, index=index))
    other = SimpleNamespace(truth={"challenge": "andi2"}, model=None)
    assert "no particles" in metric.needs(other)


@pytest.mark.extra
def test_truth_is_perfect_and_a_constant_has_the_known_scores():
    true = [
        Segments([150, 200], [0.7, 1.2], [1.0, 0.1], [FREE, IMMOBILE]),
        Segments([150], [0.9], [0.5], [FREE]),
    ]
    assert single_scores(true, true) == pytest.approx(PERFECT)
    constant = [Segments([200], [1.0], [1.0], [FREE]), Segments([150], [1.0], [1.0], [FREE])]
    scores = single_scores(true, constant)  # one of its segments stands for a particle
    assert scores["alpha_mae"] == pytest.approx((0.3 + 0.1) / 2)
    assert scores["K_msle"] == pytest.approx(np.log(2 / 1.5) ** 2 / 2)
    assert scores["state_f1"] == 1
    assert scores["change_jaccard"] == 0.5  # one missed; in the other none is and none is named


@pytest.mark.extra
def test_same_ensemble_has_no_distance_and_another_mean_its_shift():
    one = np.array([[0.8], [0.01], [1.0], [0.01], [100.0]])
    assert list(ensemble_scores(one, one).values()) == pytest.approx([0, 0], abs=1e-9)
    shifted = one + np.array([[0.2], [0], [0], [0], [0]])
    assert ensemble_scores(one, shifted)["alpha_distance"] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.extra
def test_lost_vip_stands_as_the_constant():
    vip = Segments([40], [1.0], [1.0], [FREE])
    field = Field([vip, vip], one_state([vip]), np.array([[10.0, 10.0], [50.0, 50.0]]), 40)
    scores = answer(field, [np.tile([10.0, 10.5], (40, 1))], [])
    assert scores["followed"] == 0.5
    assert scores["alpha_mae"] == pytest.approx(0.5)  # one stands still, the constant is right


@pytest.mark.extra
@pytest.mark.filterwarnings("ignore")
def test_fields_are_cut_trained_on_and_scored(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    cut = [
        "--num_clips",
        "4",
        "--splits",
        "train=0.5,val=0.5",
        "--clip_length",
        "24",
        "--fps",
        "10",
    ]
    assert main.main(["shards", "--dataset", "andi", *cut, "--output_dir", str(data)]) == 0
    small = ["batch_size=1", "max_clips=2", "save_every=2", "fps=10", f"run_dir={run}"]
    assert main.main(["train", "--config", "brownian", f"data={data}", *small]) == 0
    output = run / "results.json"
    asked = ["--model_path", str(run), "--metrics", "andi", "--output", str(output)]
    assert main.main(["evaluate", *asked]) == 0
    entry = json.loads(output.read_text())["andi"]
    assert entry["fields"] == 2
    sources = entry["sources"]
    ways = {"the model's posterior", "centroids", "trackpy", "true places", "constant"}
    assert set(sources) | set(entry["left_out"]) == ways
    assert sources["true places"]["followed"]["mean"] == 1
