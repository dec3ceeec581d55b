"""Baselines of futures: each does what its name says."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from sdevid.data import source_units
from sdevid.data.source_units import SourceUnits
from sdevid.data.transforms import Transform
from sdevid.errors import UserError
from sdevid.evaluate.ensembles import baselines, steps
from sdevid.evaluate.ensembles.baselines import Case

SIDE, AHEAD = 32, 4


def blob(x, y):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)


def case(context=4, members=8, units=None, past=None):
    """A blob that moves 1.5 pixels a frame to the right and 1 down."""
    film = np.stack([blob(10 + 1.5 * k, 12 + k) for k in range(context)])
    prefix = np.rint(255 * film)[..., None].astype(np.uint8)
    if past is None:
        past = np.random.default_rng(0).integers(0, 256, (40, 7, SIDE, SIDE, 1)).astype(np.uint8)
    return Case(prefix, AHEAD, members, units or SourceUnits(), past, seed=3)


def shape(forecast):
    return forecast.samples.shape


def test_persistence_repeats_the_last_frame_in_source_units():
    units = SourceUnits("linear", 0.0, 1.0, "share")
    forecast = baselines.persistence(case(units=units))
    assert shape(forecast) == (1, AHEAD, SIDE, SIDE, 1)
    np.testing.assert_allclose(forecast.samples[0, -1], case().prefix[-1] / 255, rtol=1e-6)


def test_training_mean_is_the_mean_of_past_frames():
    past = np.full((6, 7, SIDE, SIDE, 1), 10, np.uint8)
    past[3:] = 30
    assert np.unique(baselines.training_mean(case(past=past)).samples) == [20.0]


def test_climatology_holds_quantiles_of_each_pixel():
    past = np.broadcast_to(
        np.arange(100, dtype=np.uint8)[:, None, None, None, None], (100, 1, 4, 4, 1)
    )
    forecast = baselines.climatology(case(members=5, past=np.ascontiguousarray(past)))
    np.testing.assert_allclose(forecast.samples[:, 0, 0, 0, 0], [10, 30, 50, 69, 89], atol=1)
    assert forecast.kind == "quantiles"


def test_random_past_members_are_past_clips_and_come_again():
    forecast, again = (baselines.random_past(case()) for _ in range(2))
    np.testing.assert_array_equal(forecast.samples, again.samples)
    past = case().past[:, -AHEAD:].astype(np.float32)
    for member in forecast.samples:
        assert (past == member).all(axis=(1, 2, 3, 4)).sum() == 1


def test_optical_flow_carries_the_blob_on():
    forecast = baselines.optical_flow(case()).samples[0, ..., 0]
    for k in range(AHEAD):
        x, y = 10 + 1.5 * (4 + k), 12 + (4 + k)
        mass = forecast[k].sum()
        rows, columns = np.mgrid[:SIDE, :SIDE]
        assert (forecast[k] * columns).sum() / mass == pytest.approx(x, abs=0.7)
        assert (forecast[k] * rows).sum() / mass == pytest.approx(y, abs=0.7)


@pytest.mark.extra
def test_steps_members_differ_and_carry_the_blob_on():
    forecast = steps.steps(case(members=4))
    assert shape(forecast) == (4, AHEAD, SIDE, SIDE, 1)
    assert forecast.samples.std(axis=0).max() > 0
    column = forecast.samples[:, -1, :, :, 0].mean(axis=0).sum(axis=0)
    centre = (column * np.arange(SIDE)).sum() / column.sum()
    assert centre > 16  # the last frame's is 14.5


@pytest.mark.extra
def test_steps_keeps_a_dry_prefix_dry():
    dry = Case(np.zeros((4, SIDE, SIDE, 1), np.uint8), AHEAD, 3, SourceUnits(), None, 0)
    assert not steps.steps(dry).samples.any()


@pytest.mark.extra
def test_steps_of_a_still_prefix_keeps_it():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(SIDE, SIDE, 1)), 2)
    frame = (255 * (smooth / smooth.max()).clip(0)).astype(np.uint8)
    still = Case(np.stack([frame] * 4), AHEAD, 3, SourceUnits(), None, 0)
    assert np.abs(steps.steps(still).samples - frame).mean() < 0.1 * frame.mean()


def test_missing_pysteps_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "pip install 'sdevid[nowcast]'" in steps.needs(SimpleNamespace())


def test_one_frame_has_no_flow():
    context = SimpleNamespace(options=SimpleNamespace(context=1))
    assert "two frames" in baselines.two_frames(context)


def test_log_values_run_from_low_to_high_and_black_is_nothing():
    units = source_units.parse("log:0.1:100:mm/h", {})
    values = units.values(np.array([0, 85, 170, 255], np.uint8))
    np.testing.assert_allclose(values, [0, 1, 10, 100], rtol=1e-5)
    assert units.unit == "mm/h"


@pytest.mark.parametrize("text", ["log:0.1:100:mm/h", "linear:-3:7:K"])
def test_pixels_are_the_nearest_levels_of_their_values(text):
    units, levels = source_units.parse(text, {}), np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(units.pixels(units.values(levels)), levels)
    assert units.pixels(np.array([1e9])) == [255]


def test_baseline_undoes_the_transform_and_keeps_nan():
    transform = Transform("log", 0.0, 99.0, eps=1.0, unit="mm/h")
    units = source_units.parse(None, {"transform": transform.as_json()})
    rain = np.array([0.0, 9.0, 99.0, np.nan], np.float32)
    np.testing.assert_allclose(units.values(transform.apply(rain)), rain, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(units.values(units.pixels(rain[:3])), rain[:3], rtol=0.02)
    assert units.unit == "mm/h"


def test_values_of_the_data_set_hold_unless_others_are_given():
    dataset = {"values": "linear:-1:1:m"}
    assert source_units.parse(None, dataset).low == -1
    assert source_units.parse("linear:0:2:m", dataset).high == 2
    assert source_units.parse(None, {}).unit == "grey levels"


@pytest.mark.parametrize(
    "text", ["log:0:1:mm", "linear:2:1:m", "cubic:0:1:m", "log:1", "log:a:b:c"]
)
def test_wrong_values_are_refused_with_the_form(text):
    with pytest.raises(UserError, match="log:LOW:HIGH:UNIT"):
        source_units.parse(text, {})
