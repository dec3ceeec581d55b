"""Every format holds the samples, in the source's units where the shards say which."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pytest
import tifffile
import xarray

from sdevid.data.source_units import of_config
from sdevid.sample.__main__ import main
from sdevid.settings.source import SourceConfig

RAIN = {"dtype": "float32", "transform": "log", "low": 0.0, "high": 90.0, "eps": 0.1}
RAIN |= {"unit": "mm/h", "channel_names": ["rain"]}
ALL = "mp4,gif,npz,npy,tiff,zarr,netcdf"


def sampled(folder: Path, *arguments: str, **settings: object) -> Path:
    sde = {"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
    model = factories.save_model(folder / "model", factories.settings(sde=sde, **settings))
    options = ["--model_path", str(model), "--output_dir", str(folder / "out"), *arguments]
    assert main(options) == 0
    return folder / "out"


def test_every_format_holds_the_same_values(tmp_path):
    out = sampled(tmp_path, "--num_samples", "2", "--formats", ALL, source=RAIN)
    values = np.load(out / "sample_00001.npy")
    assert (values.dtype, values.shape) == (np.float32, (6, 16, 16, 1))
    assert values.max() > 1  # millimetres an hour, not shares of white
    np.testing.assert_array_equal(np.load(out / "sample_00001.npz")["video"], values)
    pages = tifffile.imread(out / "sample_00001.tif")
    np.testing.assert_array_equal(pages, values[..., 0])
    axes = ("sample", "time", "channel", "y", "x")
    for name, engine in (("samples.zarr", "zarr"), ("samples.nc", "h5netcdf")):
        with xarray.open_dataset(out / name, engine=engine) as opened:
            video = opened["video"].load()
        assert (video.dims, video.attrs["units"]) == (axes, "mm/h")
        np.testing.assert_array_equal(video.values[1, :, 0], values[..., 0])
        np.testing.assert_allclose(video["time"], np.arange(6) / 8)
    record = json.loads((out / "samples.json").read_text())
    endings = [name.rpartition(".")[2] for name in record["samples"][0]["files"]]
    assert endings == ["mp4", "gif", "npz", "npy", "tif", "json"]
    assert record["unit"] == "mm/h"
    assert not (out / ".parts").exists()


def test_by_default_no_gif_is_made(tmp_path):
    out = sampled(tmp_path, "--num_samples", "1")
    result = {path.name for path in out.iterdir()}
    assert result == {"grid.png", "sample_00000.mp4", "sample_00000.npz"} | {
        "sample_00000.json",
        "samples.json",
    }
    assert np.load(out / "sample_00000.npz")["video"].dtype == np.uint8


def test_integers_come_out_as_integers_of_the_source(tmp_path):
    counts = {"dtype": "uint16", "transform": "range", "low": 0.0, "high": 4095.0}
    out = sampled(tmp_path, "--num_samples", "1", "--formats", "npy,tiff", source=counts)
    values = np.load(out / "sample_00000.npy")
    assert values.dtype == np.uint16
    assert values.max() > 255
    pages = tifffile.imread(out / "sample_00000.tif")
    np.testing.assert_array_equal(pages, values[..., 0])


def test_futures_are_members_of_an_ensemble(tmp_path):
    from PIL import Image

    Image.new("L", (16, 16), 90).save(tmp_path / "first.png")
    arguments = ("--initial_frames", str(tmp_path / "first.png"), "--num_samples", "3")
    out = sampled(tmp_path, *arguments, "--formats", "zarr")
    with xarray.open_dataset(out / "samples.zarr", engine="zarr") as opened:
        sizes = dict(opened["video"].sizes)
    assert sizes == {"sample": 1, "ensemble_member": 3, "time": 6, "channel": 1, "y": 16, "x": 16}


def test_many_channels_are_shown_by_their_first(tmp_path):
    out = sampled(tmp_path, "--num_samples", "1", "--formats", "mp4,npy", channels=5)
    assert np.load(out / "sample_00000.npy").shape == (6, 16, 16, 5)
    assert (out / "sample_00000.mp4").stat().st_size > 0


def test_colour_map_colours_one_channel(tmp_path):
    out = sampled(
        tmp_path, "--num_samples", "1", "--formats", "gif", "--colormap", "viridis", source=RAIN
    )
    from PIL import Image

    red, green, blue = np.asarray(Image.open(out / "sample_00000.gif").convert("RGB")).T
    assert (np.abs(red.astype(int) - blue) > 9).any()
    assert green.max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--formats", "avi"), "--formats names 'avi', but there are mp4, gif, npz"),
        (("--formats", ","), "--formats names none"),
        (("--colormap", "purple rain"), "--colormap is 'purple rain', which matplotlib"),
    ],
)
def test_unwritable_output_is_refused_before_sampling(tmp_path, capsys, arguments, message):
    model = factories.save_model(tmp_path / "model", factories.settings())
    options = ["--model_path", str(model), "--output_dir", str(tmp_path / "out"), *arguments]
    assert main(options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named_with_its_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    model = factories.save_model(tmp_path / "model", factories.settings())
    arguments = ["--model_path", str(model), "--output_dir", str(tmp_path / "out")]
    assert main([*arguments, "--formats", "zarr"]) == 2
    assert "needs the package zarr; pip install 'sdevid[arrays]'" in capsys.readouterr().err


def test_units_of_a_config_undo_the_transform():
    units = of_config(SourceConfig(**RAIN))
    np.testing.assert_allclose(units.values(np.array([0.0, 1.0], "f4")), [0, 90], atol=1e-4)
