"""Where a model fails: the figures name the part that is wrong."""

from pathlib import Path
from types import SimpleNamespace

import factories
import numpy as np
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.evaluate.context import EvalContext, EvalOptions
from sdevid.evaluate.metrics import failures

SMALL = factories.settings(
    sequence_length=8, sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)


def spots(positions):
    """Frames with a spot at (x, y) each: (frames, 1, 16, 16)."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    frames = [torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4) for x, y in positions]
    return torch.stack(frames)[:, None]


def test_centroid_follows_a_spot_and_is_nan_on_a_blank_frame():
    place = failures.centroid(spots([(5, 7), (9, 8)]))
    np.testing.assert_allclose(place, [[5, 7], [9, 8]], atol=0.05)
    assert np.isnan(failures.centroid(torch.zeros(1, 1, 16, 16))).all()


def test_content_with_the_state_correlates_beyond_chance():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(64, 2))
    carries = np.stack([rng.normal(size=64), 0.1 * rng.normal(size=64) - state[:, 1]], axis=1)
    estimate = failures.largest_correlation(carries, state)
    assert estimate["mean"] > 0.95 > 0.5 > estimate["chance"]
    apart = failures.largest_correlation(rng.normal(size=(64, 2)), state)
    assert apart["mean"] < 2 * apart["chance"]
    assert failures.largest_correlation(carries[:7], state[:7])["mean"] is None


def test_change_within_clips_is_small_where_the_state_outlasts_them():
    rng = np.random.default_rng(0)
    lasting, noise = rng.normal(size=(200, 1, 2)), rng.normal(size=(200, 50, 2))
    assert failures.change_within(noise) == pytest.approx(1, abs=0.05)
    assert failures.change_within(lasting + 0.5 * noise) == pytest.approx(0.2, abs=0.03)
    assert np.isnan(failures.change_within(lasting))


@pytest.mark.parametrize(("change", "warns"), [(0.1, True), (0.6, False), (None, False)])
def test_clips_too_short_to_tell_content_from_state_are_named(change, warns):
    names = ("psnr", "shift_slope", "brightness", "sharpness", "nats")
    scores = {name: {} for name in names} | {"clips": 9, "context": 3}
    scores["content_state_correlation"] = {"mean": 0.8, "chance": 0.3, "state_change": change}
    (row,) = failures.rows({"failures": scores})
    assert ("too short" in row.note) is warns


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_every_objective_with_states_is_scored_part_by_part(kind, monkeypatch):
    config = parse(SMALL | {"model_type": kind})
    context = still_context(config, monkeypatch)
    scores = failures.run(context)["failures"]
    psnr = {name: entry["mean"] for name, entry in scores["psnr"].items()}
    assert psnr["still_1"] > 90  # the film stands still
    parts = {
        f"from_{start}_{n}_{noise}"
        for start in ("posterior", "prior_start")
        for n in (1, 3)
        for noise in ("noise", "no_noise")
    }
    assert {"posterior", "prior_start", "still_3", *parts} == set(psnr) - {"still_1"}
    assert scores["shift_slope"]["posterior"]["mean"] is None  # nothing moves
    assert scores["brightness"]["posterior"]["mean"] > 0
    assert any(name.startswith("kl_path") for name in scores["nats"]) == (kind != "follmer")
    names = [row.name for row in failures.rows({"failures": scores})]
    assert "from posterior 1 no noise" in names


def still_context(config, monkeypatch):
    """Nine clips of a spot that stays where it is."""
    frames = (255 * spots([(6, 9)])).to(torch.uint8).movedim(1, -1)
    ticks = config.frame_ticks(config.sequence_length)

    def fixed(_, config, part):
        video = frames.expand(len(part), config.sequence_length, *frames.shape[1:])
        return SimpleNamespace(
            video=video, ticks=ticks.expand(len(part), -1), serial=torch.tensor(part)
        )

    monkeypatch.setattr(failures.stream, "fixed", fixed)
    model = objectives.build(config).model.eval()
    index = type("Index", (), {"dataset": {}, "__len__": lambda _: 9})()
    options = EvalOptions(Path("unused"), context=3)
    return EvalContext(model, config, index, index, range(9), options)


def test_slope_is_that_of_generated_on_real_shifts():
    base = [(4, 4), (8, 8), (5, 9)]
    shifted = [(6, 4), (8, 11), (4, 9)]
    half = [(5, 4), (8, 9.5), (4.5, 9)]
    totals = failures.compared(
        "x",
        (spots(half)[:, None], spots(base)[:, None]),
        (spots(shifted)[:, None], spots(base)[:, None]),
    )
    slope = totals["shift_with_x"].sum() / totals["shift_real_x"].sum()
    assert slope == pytest.approx(0.5, abs=0.03)
