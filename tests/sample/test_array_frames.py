"""Frames to condition on from arrays: in the source's units, transformed as its shards were."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
import tifffile
from PIL import Image

from sdevid.sample.__main__ import main

GONE = 65_535
COUNTS = {"dtype": "uint16", "transform": "range", "low": 100.0, "high": 4_000.0}
FRAMES = np.random.default_rng(0).integers(100, 5_000, (3, 16, 16), dtype=np.uint16)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    small = factories.settings(sde={"latent_size": 3, "content_size": 4, "hidden": 16})
    return {
        "counts": factories.save_model(folder / "counts", small | {"source": COUNTS}),
        "grey": factories.save_model(folder / "grey", small),
    }


def npy(folder: Path) -> Path:
    np.save(folder / "film.npy", FRAMES)
    return folder / "film.npy"


def big_endian_tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "film.tif", FRAMES, byteorder=">", photometric="minisblack")
    return folder / "film.tif"


def hdf5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "film.h5", "w") as file:
        file["scan/counts"] = FRAMES
    return f"{folder / 'film.h5'}:/scan/counts"


def netcdf(folder: Path) -> Path:
    import xarray

    seconds = np.arange(3) / 8
    film = xarray.Dataset({"counts": (("time", "y", "x"), FRAMES)}, {"time": seconds})
    film.to_netcdf(folder / "film.nc", engine="h5netcdf")
    return folder / "film.nc"


def pictures(folder: Path) -> Path:
    (folder / "film").mkdir()
    for number, frame in zip((2, 9, 10), FRAMES, strict=True):
        Image.fromarray(frame).save(folder / "film" / f"{number}.png")
    return folder / "film"


def sample(model: Path, output: Path, *arguments: str) -> int:
    options = ["--model_path", str(model), "--output_dir", str(output), "--num_samples", "1"]
    return main([*options, "--formats", "npy,npz", *arguments])


@pytest.mark.parametrize("write", [npy, big_endian_tiff, hdf5, netcdf, pictures])
def test_observed_frames_come_out_as_they_went_in(models, write, tmp_path):
    """Counts of 16 bits, also beyond the transform's range, through every container."""
    out = tmp_path / "out"
    assert sample(models["counts"], out, "--initial_frames", str(write(tmp_path))) == 0
    film = np.load(out / "sample_00000.npy")
    assert film.dtype == np.uint16
    np.testing.assert_array_equal(film[:3, ..., 0], FRAMES)


def test_what_was_not_observed_conditions_on_nothing(models, tmp_path):
    """Whatever a masked pixel would hold, the future is the same."""
    films = []
    for value in (GONE, np.nan):
        frames = FRAMES.astype(np.float32)
        frames[:, 4:8] = value
        np.save(tmp_path / "film.npy", frames)
        out = tmp_path / str(value)
        missing = ["--missing", str(GONE)] if value == GONE else []
        assert (
            sample(models["counts"], out, "--initial_frames", str(tmp_path / "film.npy"), *missing)
            == 0
        )
        films.append(np.load(out / "sample_00000.npy")[3:])
    np.testing.assert_array_equal(*films)


@pytest.mark.parametrize(
    ("model", "frames", "times", "named"),
    [
        ("grey", FRAMES, None, "holds uint16, but the model was trained on grey levels"),
        (
            "counts",
            np.zeros((3, 16, 16, 2), np.uint16),
            None,
            "has 2 channels, but the model takes 1",
        ),
        ("counts", FRAMES, [0, 1, 2], "has frames every 1 s by its times, but frames are 0.125 s"),
        ("counts", FRAMES[0], None, "holds an array of shape (16, 16)"),
    ],
)
def test_array_that_does_not_fit_is_named(models, model, frames, times, named, tmp_path, capsys):
    path = tmp_path / "film.npy"
    np.save(path, frames)
    if times:
        import xarray

        path = tmp_path / "film.nc"
        film = xarray.Dataset({"counts": (("time", "y", "x"), frames)}, {"time": times})
        film.to_netcdf(path, engine="h5netcdf")
    assert sample(models[model], tmp_path / "out", "--initial_frames", str(path)) == 2
    message = capsys.readouterr().err
    assert named in message
    assert str(path) in message


def test_archive_of_several_arrays_asks_for_one(models, tmp_path, capsys):
    path = tmp_path / "films.npz"
    np.savez(path, a=FRAMES, b=FRAMES[::-1])
    assert sample(models["counts"], tmp_path / "out", "--initial_frames", str(path)) == 2
    assert f"holds 2 arrays; name one after a colon, {path}:a" in capsys.readouterr().err
    assert sample(models["counts"], tmp_path / "out", "--initial_frames", f"{path}:b") == 0
    film = np.load(tmp_path / "out" / "sample_00000.npy")
    np.testing.assert_array_equal(film[:3, ..., 0], FRAMES[::-1])
