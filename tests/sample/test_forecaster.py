"""A forecaster: labelled ensembles at any times, in the source's units."""

import sys
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdevid import Forecaster, objectives
from sdevid.config import dump, parse
from sdevid.errors import UserError

SMALL = factories.settings(
    sequence_length=8,
    fps=4,
    sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model")
    config = parse(SMALL)
    torch.manual_seed(0)
    save_file(objectives.build(config).model.state_dict(), path / "model.safetensors")
    (path / "config.yaml").write_text(dump(config))
    return path


FRAMES = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)


def test_ensemble_is_labelled_and_comes_again(folder):
    pytest.importorskip("xarray")
    forecaster = Forecaster(folder, values="linear:0:1:share")
    ensemble = forecaster(FRAMES, [0.25, 0.3, 1.0], ensemble_size=5)
    assert ensemble.dims == ("ensemble_member", "time", "channel", "y", "x")
    assert ensemble.shape == (5, 3, 1, 16, 16)
    assert ensemble.time.values.tolist() == [0.25, 0.3, 1.0]
    assert ensemble.attrs["units"] == "share"
    assert 0 <= float(ensemble.min()) <= float(ensemble.max()) <= 1
    again = forecaster(FRAMES, [0.25, 0.3, 1.0], ensemble_size=2)
    np.testing.assert_array_equal(ensemble[:2], again)  # a member does not depend on the others
    assert float(ensemble.std("ensemble_member").max()) > 0


def test_steps_are_training_intervals(folder):
    pytest.importorskip("xarray")
    forecaster = Forecaster(folder)
    np.testing.assert_array_equal(
        forecaster.forward(FRAMES, 2, 3), forecaster(FRAMES, [0.25, 0.5], 3)
    )


def test_frames_in_source_units_and_with_times_mean_the_same(folder):
    xarray = pytest.importorskip("xarray")
    forecaster = Forecaster(folder, values="linear:0:510:counts")
    minutes = np.datetime64("2026-01-01T00:00:00") + np.array([0, 250, 500], "m8[ms]")
    labelled = xarray.DataArray(
        2.0 * FRAMES, dims=("time", "y", "x"), coords={"time": minutes.astype("M8[ns]")}
    )
    np.testing.assert_array_equal(forecaster(labelled, [0.5], 2), forecaster(FRAMES, [0.5], 2))


def test_model_of_measured_values_forecasts_in_their_units(tmp_path):
    """Frames of counts in, counts beyond 8 bits out, by the transform that the config keeps."""
    pytest.importorskip("xarray")
    source = {
        "dtype": "uint16",
        "transform": "range",
        "low": 0.0,
        "high": 4_000.0,
        "unit": "counts",
    }
    path = factories.save_model(tmp_path / "model", SMALL | {"source": source})
    forecaster = Forecaster(path)
    counts = 16 * FRAMES.astype(np.uint16)
    ensemble = forecaster(counts, [0.5], 2)
    assert ensemble.attrs["units"] == "counts"
    assert len(np.unique(ensemble)) > 256
    np.testing.assert_array_equal(forecaster(counts.astype(np.float32), [0.5], 2), ensemble)
    range_of_model = (counts[..., None] / np.float32(4_000)).astype(np.float32)
    with pytest.raises(UserError, match="but the model takes float32"):
        forecaster.video_sde.predict(FRAMES[..., None])
    video = forecaster.video_sde.predict(range_of_model, num_frames=4)
    np.testing.assert_array_equal(video[0, :3], range_of_model)


def test_frame_that_was_not_observed_is_left_out_with_its_time(folder):
    """Frames of which the second is lost are those around it, two intervals apart."""
    xarray = pytest.importorskip("xarray")
    forecaster = Forecaster(folder, values="linear:0:510:counts")
    counts = 2.0 * FRAMES
    counts[1] = np.nan
    around = xarray.DataArray(
        2.0 * FRAMES[[0, 2]], dims=("time", "y", "x"), coords={"time": [0.0, 0.5]}
    )
    np.testing.assert_array_equal(forecaster(counts, [0.5], 2), forecaster(around, [0.5], 2))
    counts[2, 8:] = np.nan  # a part is read as grey, not as the largest value
    white = np.where(np.isnan(counts), 510.0, counts)
    white[1] = np.nan
    assert not np.array_equal(forecaster(counts, [0.5], 2), forecaster(white, [0.5], 2))
    with pytest.raises(UserError, match="no value of any of the 3 frames was observed"):
        forecaster(np.full_like(counts, np.nan), [0.5], 2)


@pytest.mark.parametrize(
    ("frames", "times", "size", "named"),
    [
        (FRAMES[:, :8], [1.0], 2, "frames are (3, 8, 16), but the model takes (time, 16, 16, 1)"),
        (
            np.repeat(FRAMES, 2, axis=0),
            [1.0],
            2,
            "6 frames are given, but the model takes",
        ),
        (FRAMES, [], 2, "times are []"),
        (FRAMES, [0.5, 0.5], 2, "must rise from above 0"),
        (FRAMES, [1.0], 0, "ensemble_size is 0"),
    ],
)
def test_wrong_requests_are_named(folder, frames, times, size, named):
    pytest.importorskip("xarray")
    with pytest.raises(UserError) as error:
        Forecaster(folder)(frames, times, size)
    assert named in str(error.value)


def test_missing_xarray_is_named_with_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(UserError, match=r"sdevid\[forecast\]"):
        Forecaster(folder)(FRAMES, [1.0])
