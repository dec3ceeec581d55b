"""The challenge's fields hold what the challenge says, are drawn where it says, and cut again."""

import importlib.util
import json

import numpy as np
import pytest

from sdevid.cli import shards
from sdevid.data import andi
from sdevid.data.andi import GROUND, INTENSITY, SPOT_WIDTH, VIPS, ChallengeFields, draw
from sdevid.data.spec import CutSpec


def spec(frame_size: int = 64, length: int = 60) -> CutSpec:
    return CutSpec(frame_size, 10.0, length, length, "crop", "npy")


def test_spot_has_the_stated_place_and_width():
    places = np.tile([20.3, 41.8], (400, 1, 1))
    light = draw(places, 64, np.random.default_rng(0)).mean(axis=(0, 3))
    near = (light - light[:20].mean())[34:50, 12:29]
    x, y = (
        near.sum(0) @ np.arange(12, 29) / near.sum(),
        near.sum(1) @ np.arange(34, 50) / near.sum(),
    )
    assert (x, y) == pytest.approx((20.3, 41.8), abs=0.1)
    spread = np.sqrt(near.sum(0) @ (np.arange(12, 29) - 20.3) ** 2 / near.sum())
    assert spread * np.sqrt(8 * np.log(2)) == pytest.approx(SPOT_WIDTH, rel=0.1)


def test_photons_have_the_variance_of_counts():
    frames = draw(np.full((50, 1, 2), 32.0), 64, np.random.default_rng(1))[..., 0] / 255.0
    ground = frames[:, :20] * (GROUND + INTENSITY[0]) / frames[:, 32, 32].mean()
    assert ground.mean() == pytest.approx(GROUND, rel=0.1)
    within = (ground / ground.mean((1, 2), keepdims=True) * GROUND).var()
    assert within == pytest.approx(GROUND, rel=0.1)


def test_particle_outside_the_field_is_not_drawn():
    nowhere = draw(np.full((3, 1, 2), np.nan), 64, np.random.default_rng(2))
    beside = draw(np.full((3, 1, 2), -20.0), 64, np.random.default_rng(2))
    np.testing.assert_array_equal(nowhere, beside)


def test_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert shards.main(["--dataset", "andi", "--output_dir", str(tmp_path / "cut")]) == 2
    assert "pip install 'sdevid[andi]'" in capsys.readouterr().err


def test_numpy_that_the_package_fails_with_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(np, "__version__", "2.4.6")
    assert "numpy 2.4.6" in andi.unavailable()


@pytest.mark.extra
@pytest.mark.parametrize("phenomenon", andi.PHENOMENA)
def test_field_keeps_labels_of_every_frame_and_its_vips(phenomenon):
    ((video, record),) = ChallengeFields(phenomenon).clips(np.random.default_rng(3), 1, spec())
    assert video.shape == (60, 64, 64, 1)
    assert json.loads(json.dumps(record)) == record
    assert 1 <= record["vips"] <= VIPS
    for number, track in enumerate(record["tracks"]):
        places = np.array(track["places"])
        assert track["changes"][-1] == len(places) >= andi.LEAST
        assert len(track["alpha"]) == len(track["K"]) == len(track["state"])
        assert -0.5 <= places.min() <= places.max() <= 63.5
        if number < record["vips"]:
            assert track["first"] == 0
    assert np.array(record["ensemble"]).shape[0] == 5


@pytest.mark.extra
def test_free_particles_move_by_their_labels():
    steps, stated = [], []
    for _, record in ChallengeFields("single_state").clips(np.random.default_rng(4), 12, spec(128)):
        for track in record["tracks"]:
            steps.append(np.diff(np.array(track["places"]), axis=0).var())
            stated.append(2 * track["K"][0])
    assert len(steps) > 100
    assert np.mean(steps) == pytest.approx(np.mean(stated), rel=0.05)


@pytest.mark.extra
def test_same_seed_draws_the_same_and_leaves_global_numbers_alone():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    first, again = (
        next(ChallengeFields().clips(np.random.default_rng(5), 1, spec())) for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    assert np.random.rand() == expected
