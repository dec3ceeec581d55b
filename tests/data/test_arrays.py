"""Arrays in: every kind of stack goes into shards with its values, times and what is missing."""

import json
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sdevid.config import parse as parse_config
from sdevid.data import source_units, stream, transforms
from sdevid.data.arrays import keep, references
from sdevid.data.arrays.stack import open_stack
from sdevid.data.cut.options import parse
from sdevid.data.cut.plans import make_plan
from sdevid.data.cut.run import cut
from sdevid.data.shards import open_shards
from sdevid.data.spec import BadVideoError
from sdevid.errors import UserError
from sdevid.types import TICKS_PER_UNIT

FRAMES, SIDE = 12, 16
BASE = ["--dataset", "custom", "--clip_length", "6", "--splits", "time=0.5", "--workers", "0"]


def shards(arguments, out, *more, options=BASE):
    asked = parse([*options, "--input_dir", str(arguments), "--output_dir", str(out), *more])
    cut(make_plan(asked), out, workers=0, max_bad_fraction=0.1, overwrite=False)
    return open_shards(out, "train")


def stack(dtype="float32", channels=()):
    values = np.random.default_rng(0).random((FRAMES, SIDE, SIDE, *channels))
    return (values * 200).astype(dtype)


def written(kind, folder, values):
    """`values` in a file, or folder, of the kind; what to give as input_dir."""
    path = folder / f"a.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez(path, one=values)
    elif kind == "tif":
        tifffile.imwrite(path, values, photometric="minisblack")
    elif kind == "png":
        (folder / "film").mkdir()
        for number, frame in enumerate(values):  # 10 sorts after 9
            Image.fromarray(frame).save(folder / "film" / f"f{number}.png")
        return folder
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["deep/field"] = values
        return f"{path}:/deep/field"
    return path if kind != "npz" else folder


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("npy", "uint16"),
        ("npy", "float32"),
        ("npz", "float16"),
        ("tif", "uint8"),
        ("tif", "uint16"),
        ("tif", "float32"),
        ("png", "uint8"),
        ("png", "uint16"),
        ("h5", "float32"),
    ],
)
def test_stack_of_any_kind_and_type_comes_back_bit_for_bit(tmp_path, kind, dtype):
    values = stack(dtype)
    (tmp_path / "in").mkdir()
    index = shards(written(kind, tmp_path / "in", values), tmp_path / "out", "--interval", "40ms")
    assert index.dtype == dtype
    video = index.read(0).video
    assert video.dtype == dtype
    np.testing.assert_array_equal(video[..., 0], values[:6])
    np.testing.assert_array_equal(
        open_shards(tmp_path / "out", "val").read(0).video[..., 0], values[6:]
    )
    assert index.clips[0].fps == 25


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_variables_are_channels_and_the_time_coordinate_is_kept(tmp_path, ending):
    xarray = pytest.importorskip("xarray")
    times = np.datetime64("2026-01-01", "ns") + np.array([0, 2, 4, 6, 8, 11]) * np.timedelta64(
        60, "s"
    )
    wind = stack()[:6]
    fields = xarray.Dataset(
        {
            "u": (("time", "y", "x"), wind, {"units": "m/s"}),
            "v": (("time", "y", "x"), -wind, {"units": "m/s"}),
        },
        coords={"time": times},
    )
    path = tmp_path / f"wind.{ending}"
    if ending == "zarr":
        pytest.importorskip("zarr")
        fields.to_zarr(path)
    else:
        pytest.importorskip("h5netcdf")
        fields.to_netcdf(path, engine="h5netcdf")
    options = ["--dataset", "custom", "--clip_length", "6", "--splits", "train=1"]
    index = shards(f"{path}:u,v", tmp_path / "out", options=options)
    clip = index.read(0)
    assert clip.video.shape == (6, SIDE, SIDE, 2)
    np.testing.assert_array_equal(clip.video[..., 1], -wind)
    assert index.dataset["channel_names"] == ["u", "v"]
    assert index.transform.unit == "m/s"
    assert index.clips[0].fps == 1 / 120
    config = parse_config(SMALL | {"channels": 2, "fps": "1/120", "sequence_length": 6})
    batch = stream.fixed(index, config, range(1))
    assert batch.ticks[0].tolist() == [round(k * TICKS_PER_UNIT) for k in (0, 1, 2, 3, 4, 5.5)]


SMALL = {
    "frame_size": SIDE,
    "channels": 1,
    "sequence_length": 4,
    "fps": 25,
    "observation": {"max_context": 2},
    "encoder": {"map_size": 4},
}


def test_clip_never_crosses_a_gap_and_a_span_bounds_it(tmp_path):
    np.save(tmp_path / "a.npy", stack())
    csv = tmp_path / "times.csv"
    seconds = [0, 1, 2, 3, 4, 5, 100, 101, 102, 105, 106, 107]
    rows = "".join(f"a.npy,{second}\n" for second in seconds)
    csv.write_text("path,seconds\n" + rows)
    options = ["--dataset", "custom", "--clip_length", "3", "--splits", "train=1"]
    options += ["--times", str(csv)]
    index = shards(tmp_path / "a.npy", tmp_path / "all", options=options)
    starts = [index.read(k).meta["start"] for k in range(len(index))]
    assert sorted(starts) == [0, 3, 100, 105]
    options += ["--clip_span", "2s", "--clip_stride", "1"]
    index = shards(tmp_path / "a.npy", tmp_path / "spans", options=options)
    starts = [index.read(k).meta["start"] for k in range(len(index))]
    assert sorted(starts) == [0, 1, 2, 3, 100, 105]


def test_loader_gives_the_range_and_nan_where_unobserved(tmp_path):
    values = stack()
    values[2] = np.nan
    values[1, :4] = np.nan
    np.save(tmp_path / "a.npy", values)
    index = shards(tmp_path / "a.npy", tmp_path / "out", "--fps", "25", "--transform", "log 1.0")
    batch = stream.fixed(index, parse_config(SMALL | {"sequence_length": 6}), range(1))
    assert batch.video.dtype == torch.float32
    seen = batch.video[0].numpy()
    assert np.nanmin(seen) == pytest.approx(0, abs=1e-6)
    assert np.nanmax(seen) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(np.isnan(seen[..., 0]), np.isnan(values[:6]))
    back = index.transform.undo(seen)[..., 0]
    np.testing.assert_allclose(back, values[:6], rtol=1e-4, atol=1e-3)
    assert batch.pixels.dtype == np.uint8
    units = source_units.parse(None, index.dataset)
    shown = units.values(batch.pixels[0, :1, 4:, :, 0])
    np.testing.assert_allclose(shown, values[:1, 4:], rtol=0.02, atol=0.05)
    assert index.read(0).meta["not_observed"] > 0


@pytest.mark.parametrize(
    "text", ["range -2 9", "percentile 1 99", "log 0.1", "sqrt", "standardise"]
)
def test_transform_is_undone_by_its_inverse(text):
    values = np.random.default_rng(1).gamma(1.0, 3.0, 5000).astype(np.float32)
    result = transforms.fit(text, transforms.statistics([values]), "mm/h")
    np.testing.assert_allclose(result.undo(result.apply(values)), values, rtol=2e-3, atol=1e-4)
    ends = result.apply(np.array([result.low, result.high]))
    np.testing.assert_allclose(ends, [0, 1], atol=1e-6)


def test_tiles_of_splits_share_no_pixel(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((6, 16, 64)).astype("float32"))
    options = ["--dataset", "custom", "--clip_length", "6", "--fps", "1", "--tile", "16"]
    options += ["--tile_stride", "8", "--splits", "train=0.75,val=0.25"]
    shards(tmp_path / "a.npy", tmp_path / "out", options=options)
    lefts = {}
    for split in ("train", "val"):
        index = open_shards(tmp_path / "out", split)
        names = {index.read(k).meta["source"] for k in range(len(index))}
        lefts[split] = sorted(int(name.rpartition(",")[2]) for name in names)
    assert lefts == {"train": [0, 8, 16, 24, 32], "val": [48]}


def test_rule_keeps_what_it_says_and_runs_nothing():
    flat, busy = np.zeros((2, 4, 4, 1), np.uint8), np.tile(np.uint8([0, 255]), 16)
    rule = keep.parse("std > 0.02 and not (mean > 0.9 or nan >= 0.5)")
    assert not rule(flat)
    assert rule(busy)
    assert keep.parse("0.1 < mean < 0.6")(busy)
    for text in ("__import__('os')", "std", "std > x", "std == 1", "std > 1 +", "mean.real > 0"):
        with pytest.raises(UserError, match="--keep_if is"):
            keep.parse(text)


def _two(folder):
    np.save(folder / "a.npy", stack("uint8"))
    np.save(folder / "b.npy", stack("uint16"))


def _nothing(folder):
    np.save(folder / "a.npy", np.full((12, 16, 16), np.nan, np.float32))


def _one(folder):
    np.save(folder / "a.npy", stack())


@pytest.mark.parametrize(
    ("make", "more", "named"),
    [
        (_two, ["--fps", "8"], "b.npy holds uint16 of 1 channels, but a.npy uint8"),
        (_nothing, ["--fps", "8"], "no value|all NaN|no video gave a clip"),
        (_one, [], "a.npy says no times .* give --interval"),
        (_one, ["--interval", "2 parsecs"], "'parsecs' is no unit of time"),
        (_one, ["--fps", "8", "--transform", "range 5 5"], "range is empty; give LOW below HIGH"),
        (_one, ["--fps", "8", "--transform", "cube"], "--transform is 'cube', but must be range"),
        (_one, ["--fps", "8", "--tile", "64"], "--tile is 64, but a.npy has frames of 16x16"),
        (_one, ["--fps", "8", "--clip_span", "x"], "--clip_span is 'x'"),
        (_one, ["--fps", "8", "--store", "mp4"], "--store is mp4"),
    ],
)
def test_bad_input_is_told_with_file_value_rule_and_remedy(tmp_path, make, more, named):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    with pytest.raises(UserError, match=named):
        shards(tmp_path / "in", tmp_path / "out", *more)


def test_picture_alone_is_no_video_and_channels_must_fit(tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="no video"):
        shards(tmp_path, tmp_path / "out", "--fps", "8")
    np.save(tmp_path / "a.npy", stack("uint8", (3,)))
    index = shards(tmp_path, tmp_path / "grey", "--fps", "25", "--channels", "grey")
    assert index.clips[0].channels == 1
    lines = (tmp_path / "grey" / "quarantine.jsonl").read_text().splitlines()
    assert any("is a picture, not a video" in json.loads(line)["reason"] for line in lines)
    with pytest.raises(UserError, match=r"channels is 3, but .* set channels=1"):
        stream.check_clips(index, parse_config(SMALL | {"channels": 3}))


def hdf5_that_takes_from(kind, path, private):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        if kind == "storage":
            file.create_dataset("film", (8, 16, 16), "uint8", external=[(str(private), 0, 2048)])
        elif kind == "link":
            file["group/film"] = h5py.ExternalLink(str(private), "/film")
        else:
            layout = h5py.VirtualLayout((8, 16, 16), "uint8")
            layout[:] = h5py.VirtualSource(str(private), "film", (8, 16, 16))
            file.create_virtual_dataset("film", layout)


@pytest.mark.parametrize("ending", ["h5", "nc"])
@pytest.mark.parametrize("kind", ["storage", "link", "virtual"])
def test_hdf5_that_takes_from_another_file_is_not_read(tmp_path, kind, ending):
    h5py = pytest.importorskip("h5py")
    private, path = tmp_path / "private", tmp_path / f"film.{ending}"
    with h5py.File(private, "w") as file:
        file["film"] = np.full((8, 16, 16), 77, np.uint8)
    hdf5_that_takes_from(kind, path, private)
    with pytest.raises(BadVideoError, match="private, which is not followed"):
        open_stack(path, "film")


def test_hdf5_whose_groups_hold_each_other_is_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["a/film"] = np.full((8, 16, 16), 7, np.uint8)
        file["a/b"] = file["/"]
        file["soft"] = h5py.SoftLink("/a/film")
    assert open_stack(tmp_path / "film.h5", "soft").read(0, 8).mean() == 7


def test_zarr_with_a_link_out_of_it_is_not_read(tmp_path):
    private, path = tmp_path / "private", tmp_path / "film.zarr"
    private.write_bytes(bytes(2048))
    (path / "c").mkdir(parents=True)
    (path / "c" / "inside").touch()
    (path / "inside").symlink_to("c/inside")
    assert references.of_zarr(path) is None
    (path / "c" / "0").symlink_to(private)
    with pytest.raises(BadVideoError, match="c/0 is a link out of it"):
        open_stack(path, "film")


def test_ome_tiff_opens_no_other_file(tmp_path):
    private, path = tmp_path / "private.tif", tmp_path / "film.tif"
    tifffile.imwrite(private, np.full((16, 16), 77, np.uint8))
    blocks = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{private if t else path.name}">urn:uuid:{t}</UUID></TiffData>'
        for t in range(8)
    )
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        'Type="uint8" SizeX="16" SizeY="16" SizeZ="1" SizeC="1" SizeT="8">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), description=ome, metadata=None)
    with tifffile.TiffFile(path) as file:
        assert 77 in file.series[0].asarray(), "the premise: by itself tifffile reads the other"
    with suppress(BadVideoError):
        assert 77 not in open_stack(path, "").read(0, 8)


def picture_bomb():
    """A PNG of 0.6 MB that opens to 600 MB."""
    header = struct.pack(">IIBBBBB", 30_000, 20_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(30_001 * 20_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_picture_that_opens_to_gigabytes_is_damage_of_its_film(tmp_path):
    for film in ("good", "bad"):
        (tmp_path / "films" / film).mkdir(parents=True)
        for number, frame in enumerate(stack("uint8")):
            Image.fromarray(frame).save(tmp_path / "films" / film / f"{number}.png")
    (tmp_path / "films" / "bad" / "7.png").write_bytes(picture_bomb())
    asked = parse(
        [
            *BASE,
            "--interval",
            "1s",
            "--input_dir",
            f"{tmp_path}/films",
            "--output_dir",
            f"{tmp_path}/out",
        ]
    )
    out = tmp_path / "out"
    cut(make_plan(asked), out, workers=0, max_bad_fraction=0.6, overwrite=False)
    (fault,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert fault["reason"].startswith("does not read (DecompressionBombError")
