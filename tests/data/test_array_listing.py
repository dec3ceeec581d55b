"""Folders of arrays: every file and row is accounted for, and no depth is lost without a word."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sdevid.cli.shards import main
from sdevid.data.arrays.stack import open_stack
from sdevid.data.shards import open_shards
from sdevid.errors import UserError
from sdevid.sample.array_frames import check_missing

FILM = np.random.default_rng(0).integers(1, 4_000, (8, 16, 16), dtype=np.uint16)


def cut(folder: Path, *more: str) -> int:
    options = ["--dataset", "custom", "--input_dir", str(folder / "in"), "--fps", "8"]
    options += ["--output_dir", str(folder / "out"), "--splits", "train=1", "--workers", "0"]
    return main([*options, "--clip_length", "4", *more])


@pytest.fixture
def given(tmp_path: Path) -> Path:
    (tmp_path / "in" / "cells" / "dish").mkdir(parents=True)
    np.save(tmp_path / "in" / "cells" / "dish" / "a.npy", FILM)
    return tmp_path


def test_links_are_followed_once_and_every_file_is_accounted_for(given, capsys):
    (given / "in" / "cells" / "up").symlink_to(given / "in")
    (given / "in" / "gone.npy").symlink_to("/nowhere")
    np.save(given / "in" / ".hidden.npy", FILM)
    (given / "in" / "notes.txt").touch()
    assert cut(given) == 0
    said = capsys.readouterr().out
    assert "5 files: 1 used, 0 bad videos, 4 left out, 0 lists" in said
    assert "gone.npy is a broken link to /nowhere" in said
    assert "cells/up is a link to the folder itself, which is taken" in said
    assert len(open_shards(str(given / "out"), "train")) == 2


def test_captions_and_labels_of_arrays_are_those_of_the_csv_and_the_level(given, capsys):
    csv = "path,caption\ncells/dish/a.npy,one\ncells/dish/a.npy,two\nb.npy,none\n"
    (given / "in" / "captions.csv").write_text(csv)
    assert cut(given, "--label_level", "1", "--tile", "8") == 0
    index = open_shards(str(given / "out"), "train")
    assert index.clips[0].label == "cells"
    assert index.read(0).meta["captions"] == ["one", "two"]
    said = capsys.readouterr().out
    assert "captions.csv line 4 names b.npy, which is not there" in said
    assert "2 files: 1 used, 0 bad videos, 0 left out, 1 lists" in said
    assert "3 rows: 2 used, 0 of bad videos, 1 left out" in said


def test_times_of_an_array_that_is_not_there_are_refused(given, capsys):
    times = "".join(f"b.npy,{k}\n" for k in range(8))
    (given / "times.csv").write_text("path,seconds\n" + times)
    assert cut(given, "--times", str(given / "times.csv")) == 2
    assert "times.csv line 2 names b.npy, which is not there" in capsys.readouterr().err


def test_negative_counts_of_pictures_stay_negative(tmp_path):
    heights = np.arange(-1_000, 1_048, dtype=np.int16).reshape(8, 16, 16)
    for number, frame in enumerate(heights):
        tifffile.imwrite(tmp_path / f"{number}.tif", frame)
    read = open_stack(tmp_path, "")
    assert read.dtype == "float32"
    np.testing.assert_array_equal(read.read(0, 8)[..., 0], heights)


def png(path: Path, pixels: np.ndarray, colour_type: int) -> None:
    """Write a PNG of 16 bits, which Pillow does not write in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6)])
def test_colour_of_16_bits_keeps_them(tmp_path, channels, colour_type):
    """Colours come back bit for bit; transparency is left out, as of 8 bits."""
    films = np.random.default_rng(1).integers(0, 65_536, (2, 8, 12, channels))
    for number, frame in enumerate(films):
        png(tmp_path / f"{number}.png", frame, colour_type)
    read = open_stack(tmp_path, "")
    assert read.dtype == "uint16"
    np.testing.assert_array_equal(read.read(0, 2), films[..., :3])


@pytest.mark.parametrize("value", [65_536.0, -1.0, 0.5, float("nan")])
def test_value_of_what_is_missing_must_be_one_of_the_type(value):
    with pytest.raises(UserError, match="but the arrays hold uint16, whole numbers from 0 to"):
        check_missing(value, np.dtype("uint16"), "--missing")
    check_missing(value, np.dtype("float32"), "--missing")


def test_infinite_values_are_named_with_the_remedy(tmp_path, capsys):
    """Radar in decibels says -inf where there is no rain; training would be lost on it."""
    (tmp_path / "in").mkdir()
    decibels = FILM.astype(np.float32)
    decibels[2, :4] = -np.inf
    np.save(tmp_path / "in" / "a.npy", decibels)
    assert cut(tmp_path) == 2
    assert "--missing=-inf (or inf) says that they were not observed" in capsys.readouterr().err
    assert cut(tmp_path, "--missing=-inf", "--overwrite") == 0
    index = open_shards(str(tmp_path / "out"), "train")
    assert np.isnan(index.read(0).video[2, :4]).all()


def test_missing_value_outside_the_type_is_no_damage(given, capsys):
    assert cut(given, "--missing", "-1") == 2
    assert "--missing is -1, but the arrays hold uint16" in capsys.readouterr().err
