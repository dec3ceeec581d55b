"""What files of arrays say of their axes, times and units; what they must not say."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import xarray
import zarr
from PIL import Image

from sdevid.cli.shards import main
from sdevid.data.arrays.stack import is_animation, open_stack
from sdevid.data.shards import open_shards
from sdevid.data.spec import BadVideoError
from sdevid.errors import UserError

FIELD = np.random.default_rng(0).random((12, 16, 20)).astype(np.float32)
FLOW = np.random.default_rng(1).random((12, 2, 16, 20)).astype(np.float32)


def dataset(times, units=None, axes=("time", "y", "x"), values=FIELD) -> xarray.Dataset:
    about = {} if units is None else {"units": units}
    return xarray.Dataset({"rain": (axes, values)}, {"time": ("time", times, about)})


@pytest.mark.parametrize(
    ("units", "second"),
    [
        ("seconds since 2020-01-01", 1.0),
        ("minutes", 60.0),
        ("hours since 2020-01-01", 3600.0),
        ("days", 86_400.0),
        (None, 1.0),
    ],
)
def test_times_of_netcdf_are_in_their_own_units(tmp_path, units, second):
    dataset(2.0 * np.arange(12), units).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    stack = open_stack(tmp_path / "a.nc", "rain")
    np.testing.assert_allclose(stack.seconds, 2 * second * np.arange(12))


@pytest.mark.parametrize("axes", [("y", "x", "time"), ("y", "time", "x")])
def test_axis_of_time_is_found_by_its_name(tmp_path, axes):
    places = [("time", "y", "x").index(axis) for axis in axes]
    held = dataset(np.arange(12.0), "s", axes, FIELD.transpose(places))
    held.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    stack = open_stack(tmp_path / "a.nc", "")
    np.testing.assert_array_equal(stack.read(0, 12)[..., 0], FIELD)


def test_levels_of_a_field_are_its_channels(tmp_path):
    held = dataset(np.arange(12.0), "s", ("time", "level", "y", "x"), FLOW)
    held.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    stack = open_stack(tmp_path / "a.nc", "rain")
    assert stack.shape == (12, 16, 20, 2)
    np.testing.assert_array_equal(stack.read(3, 5), np.moveaxis(FLOW[3:5], 1, 3))


@pytest.mark.parametrize(
    "shape", [(12, 2, 16, 20), (12, 16, 20, 2), (12, 16, 16, 48), (12, 3, 64, 64)]
)
def test_channels_of_a_bare_array_are_its_shorter_or_odd_axis(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert open_stack(tmp_path / "a.npy", "").shape[3] in (2, 3, 48)


def test_tiff_says_which_axis_is_of_channels_and_when_frames_were(tmp_path):
    counts = (1000 * FLOW).astype(np.uint16)
    about = {"axes": "TCYX", "finterval": 0.5}
    tifffile.imwrite(tmp_path / "ij.tif", counts, imagej=True, metadata=about)
    about = {"axes": "TCYX", "TimeIncrement": 500, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(tmp_path / "a.ome.tif", counts, metadata=about)
    for name in ("ij.tif", "a.ome.tif"):
        stack = open_stack(tmp_path / name, "")
        assert stack.shape == (12, 16, 20, 2)
        np.testing.assert_allclose(stack.seconds, 0.5 * np.arange(12))
        np.testing.assert_array_equal(stack.read(0, 12), np.moveaxis(counts, 1, 3))


@pytest.mark.parametrize("scaled", [False, True])
def test_times_of_hdf5_stand_beside_the_array_or_are_its_scale(tmp_path, scaled):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        film = file.create_dataset("scan/film", data=FIELD)
        times = file.create_dataset("when" if scaled else "scan/time", data=2.0 * np.arange(12))
        times.attrs["units"] = "minutes"
        film.attrs["units"] = "counts"
        if scaled:
            times.make_scale("clock")
            film.dims[0].attach_scale(times)
    stack = open_stack(tmp_path / "a.h5", "/scan/film")
    np.testing.assert_allclose(stack.seconds, 120.0 * np.arange(12))
    assert stack.unit == "counts"


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_without_named_axes_is_read_with_the_time_beside_it(tmp_path, version):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    group.create_array("rain", data=FIELD)
    group.create_array("time", data=np.arange(12) * 5.0).attrs["units"] = "ms"
    stack = open_stack(tmp_path / "a.zarr", "")
    np.testing.assert_array_equal(stack.read(2, 4)[..., 0], FIELD[2:4])
    np.testing.assert_allclose(stack.seconds, 0.005 * np.arange(12))
    zarr.create_array(str(tmp_path / "b.zarr"), data=FIELD, zarr_format=version)
    alone = open_stack(tmp_path / "b.zarr", "")
    assert alone.seconds is None
    np.testing.assert_array_equal(alone.read(0, 12)[..., 0], FIELD)


def test_webp_animation_is_a_film_with_its_own_times(tmp_path):
    pictures = [Image.new("RGB", (20, 16), (20 * k, 255 - 20 * k, 7)) for k in range(8)]
    first, *rest = pictures
    first.save(tmp_path / "a.webp", save_all=True, append_images=rest, duration=250, lossless=True)
    first.save(tmp_path / "still.webp")
    assert is_animation(tmp_path / "a.webp")
    stack = open_stack(tmp_path / "a.webp", "")
    np.testing.assert_allclose(stack.seconds, 0.25 * np.arange(8))
    np.testing.assert_array_equal(stack.read(0, 8), np.stack([np.asarray(p) for p in pictures]))
    with pytest.raises(BadVideoError, match="is a picture, not a video"):
        open_stack(tmp_path / "still.webp", "")


def cut(folder: Path, *more: str) -> int:
    options = ["--dataset", "custom", "--input_dir", str(folder / "in"), "--clip_length", "6"]
    options += ["--output_dir", str(folder / "out"), "--splits", "train=1", "--workers", "0"]
    return main([*options, *more])


def units_of_no_time(folder: Path) -> None:
    dataset(np.arange(12.0), "parsecs").to_netcdf(folder / "a.nc", engine="h5netcdf")


def times_that_fall(folder: Path) -> None:
    dataset(np.arange(12.0)[::-1], "s").to_netcdf(folder / "a.nc", engine="h5netcdf")


def no_times(folder: Path) -> None:
    dataset(np.arange(12.0)).drop_vars("time").to_zarr(folder / "a.zarr")


def two_shapes(folder: Path) -> None:
    for name, side in (("a", 16), ("b", 24)):
        np.save(folder / f"{name}.npy", np.zeros((12, side, side), np.uint8))


def nothing_but_nan(folder: Path) -> None:
    np.save(folder / "a.npy", np.full((12, 16, 16), np.nan, np.float32))


@pytest.mark.parametrize(
    ("make", "more", "named"),
    [
        (units_of_no_time, [], "a.nc: time has the units 'parsecs', which are no unit of time"),
        (times_that_fall, [], "a.nc has times that do not rise: frame 1"),
        (no_times, [], "a.zarr says no times of its frames; give --interval, e.g. 2min"),
        (
            two_shapes,
            ["--fps", "8"],
            "b.npy has frames of 24x24, but a.npy of 16x16; give --frame_size",
        ),
        (nothing_but_nan, ["--fps", "8"], "e.g. a.npy gives no clip: clips of no value, all NaN"),
    ],
)
def test_arrays_at_fault_are_named_with_the_remedy(tmp_path, capsys, make, more, named):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    assert cut(tmp_path, *more) == 2
    assert named in capsys.readouterr().err


def test_array_whose_times_fall_is_left_out_of_the_others(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    times_that_fall(tmp_path / "in")
    dataset(np.arange(12.0), "s").to_netcdf(tmp_path / "in" / "b.nc", engine="h5netcdf")
    assert cut(tmp_path) == 0
    assert "left out: a.nc has times that do not rise" in capsys.readouterr().out
    assert {clip.source for clip in open_shards(str(tmp_path / "out"), "train").clips} == {"b.nc"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"path;caption\na.mp4;one\n", "its columns are parted by semicolons: save it with commas"),
        (b"path\tcaption\na.mp4\tone\n", "its columns are parted by tabs: save it with commas"),
        (b"path,caption\na.mp4,caf\xe9\n", "line 2 holds the byte 0xe9"),
    ],
)
def test_csv_of_another_kind_is_named_with_the_remedy(tmp_path, content, named):
    from sdevid.data.cut.table import read_table

    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(UserError, match=named):
        read_table(tmp_path / "captions.csv", ("path", "caption"))


@pytest.mark.parametrize(("more", "unit"), [([], "K"), (["--unit", "mm/h"], "mm/h")])
def test_unit_is_the_files_or_as_given(tmp_path, more, unit):
    (tmp_path / "in").mkdir()
    held = dataset(np.arange(12.0), "s")
    held["rain"].attrs["units"] = "K"
    held.to_netcdf(tmp_path / "in" / "a.nc", engine="h5netcdf")
    assert cut(tmp_path, *more) == 0
    assert open_shards(str(tmp_path / "out"), "train").transform.unit == unit


def test_option_of_arrays_is_refused_where_there_are_videos(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"")
    assert cut(tmp_path, "--tile", "8") == 2
    assert f"--tile is for arrays, but {tmp_path / 'in'} holds videos" in capsys.readouterr().err
