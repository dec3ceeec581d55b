"""Tars of other makers are cut as folders of videos are, and every member has its end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from sdevid.cli.shards import main as shards
from sdevid.data.cut.account import account
from sdevid.data.cut.command import main
from sdevid.data.cut.parts import Fault
from sdevid.data.cut.sources import LeftOut
from sdevid.data.cut.tars import find_tars, webdataset
from sdevid.data.payload import decode, encode
from sdevid.data.shards import open_shards
from sdevid.errors import UserError


def array(frames: int) -> bytes:
    buffer = io.BytesIO()
    values = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    np.save(buffer, np.broadcast_to(8 * values, (frames, 20, 24, 3)))
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """One tar as video2dataset makes it, one by TarWriter."""
    video = make_video("v.mp4", frames=30, rate=15).read_bytes()
    folder = tmp_path / "tars"
    folder.mkdir()

    def sample(key: str, **members: Any) -> dict[str, Any]:
        return {"__key__": key, **members}

    with wds.TarWriter(str(folder / "00000.tar"), encoder=False) as tar:
        metadata = json.dumps({"caption": "another", "videoID": 7}).encode()
        tar.write(sample("000000_00000", mp4=video, txt=b"a dog", json=metadata))
        tar.write(sample("000000_00001", mp4=video, txt=b"a dog again"))
        tar.write(sample("000001", jpg=b"\xff\xd8", txt=b"a picture"))
    with wds.TarWriter(str(folder / "00001.tar"), encoder=False) as tar:
        tar.write(sample("dir/a", npy=array(30), json=b'{"fps": 15.0}', cls=b"3"))
        tar.write(sample("dir/b", npy=array(30)))
        tar.write(sample("dir/c", mp4=b"no video", json=b"[1]"))
        tar.write(sample("dir/d", avi=b"no video"))
    return folder


def test_samples_become_sources_with_what_is_said_of_them(tars):
    listing = webdataset(str(tars))
    assert [(s.name, s.captions, s.label) for s in listing.sources][:3] == [
        ("00000.tar/000000_00000.mp4", ("a dog", "another"), ""),
        ("00000.tar/000000_00001.mp4", ("a dog again",), ""),
        ("00001.tar/dir/a.npy", (), "3"),
    ]
    first, second = listing.sources[:2]
    assert first.group == second.group, "two clips of one video share a split"
    assert listing.left_out == [
        LeftOut("00000.tar/000001.jpg", "is a picture, not a video"),
        LeftOut("00000.tar/000001.txt", "belongs to no video"),
    ]
    assert (listing.files, listing.lists) == (14, 6)
    faults = {s.name: Fault("is torn", "bad") for s in listing.sources[3:]}
    assert account(listing, faults)["files"]["used"] == 3


def test_tars_are_cut_to_shards(tars, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--dataset", "webdataset", "--input_dir", str(tars), "--output_dir", str(out)]
    options += ["--frame_size", "16", "--fps", "15", "--clip_length", "10", "--splits", "train=1"]
    options += ["--workers", "0", "--max_bad_fraction", "0.5"]
    none = lambda *_: pytest.fail("no encoder")  # noqa: E731
    assert main(options, load_encoder=none, load_autoencoder=none) == 0
    assert "14 files: 3 used, 2 bad videos, 3 left out, 6 lists" in capsys.readouterr().out
    index = open_shards(out, "train")
    clips = [index.read(k) for k in range(len(index))]
    of_array = [clip for clip in clips if clip.meta["source"] == "00001.tar/dir/a.npy"]
    assert [clip.meta["start"] for clip in of_array] == [0.0, 0.666667, 1.333333]
    assert np.array_equal(of_array[1].video[:, 8, 8, 0], 8 * np.arange(10, 20))
    assert {clip.meta["caption"] for clip in clips} == {"a dog", "a dog again", ""}


def test_torn_tar_is_damage_from_where_it_is_torn(tars):
    path = tars / "00000.tar"
    path.write_bytes(path.read_bytes()[:-3_000])
    whole = len(webdataset(str(tars)).sources)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    torn = webdataset(str(tars))
    assert whole >= len(torn.sources)
    faults = [source for source in torn.sources if source.fault]
    assert any("the tar" in (source.fault or "") for source in faults)


def test_brace_lists_name_tars_and_missing_ones_are_named(tars):
    listing = webdataset(f"{tars}/{{00000..00002}}.tar")
    assert len(listing.sources) == 6
    assert LeftOut("00002.tar", "is not there") in listing.left_out
    assert find_tars("s3://b/{0..1}.tar") == [("s3://b", "0.tar"), ("s3://b", "1.tar")]


def test_no_tar_and_no_video_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no tar"):
        webdataset(str(tmp_path))
    with wds.TarWriter(str(tmp_path / "x.tar"), encoder=False) as tar:
        tar.write({"__key__": "a", "txt": b"alone"})
    with pytest.raises(UserError, match=r"hold no video; e\.g\. x\.tar/a\.txt belongs to no video"):
        webdataset(str(tmp_path))


def test_training_on_them_says_what_to_do(tars):
    with pytest.raises(UserError, match="sdevid shards --dataset webdataset"):
        open_shards(tars, "train")
    with pytest.raises(UserError, match="sdevid shards --dataset webdataset"):
        open_shards(f"{tars}/{{00000..00001}}.tar", "train")


@pytest.fixture
def uniform(tmp_path: Path) -> Path:
    """Tars of videos of one size, but for one."""
    folder = tmp_path / "uniform"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        with wds.TarWriter(str(folder / f"{number:05d}.tar"), encoder=False) as tar:
            for k in range(3):
                video = rng.integers(0, 255, (10, 16, 16, 3), dtype=np.uint8)
                tar.write({"__key__": f"{k:09d}", "mp4": encode("mp4", video, 8.0), "txt": b"dog"})
            odd = np.zeros((10, 16, 32, 3), np.uint8)
            tar.write({"__key__": "odd", "mp4": encode("mp4", odd, 8.0), "cls": b"4"})
            tar.write({"__key__": "torn", "mp4": b"torn", "txt": b"dog"})
    return folder


def test_index_makes_tars_of_one_size_readable_as_they_are(uniform, capsys):
    before = {path.name: path.read_bytes() for path in uniform.glob("*.tar")}
    assert shards(["index", str(uniform)]) == 0
    out = capsys.readouterr().out
    assert "6 clips, 4 samples left out" in out
    assert "00000.tar/odd is 32 x 16 pixels of 3 channels at 8 a second, most are 16 x 16" in out
    assert {path.name: path.read_bytes() for path in uniform.glob("*.tar")} == before
    index = open_shards(uniform, "train")
    clips = [index.read(k) for k in range(len(index))]
    assert {clip.meta["caption"] for clip in clips} == {"dog"}
    first = next(iter(wds.WebDataset(str(uniform / "00000.tar"), shardshuffle=False)))
    assert np.array_equal(clips[0].video, decode("mp4", first["mp4"], (10, 16, 16, 3)))


def test_index_of_what_cannot_be_read_as_it_is_says_so(tars, capsys):
    (tars / "00000.tar").unlink()
    assert shards(["index", f"{tars}/00001.tar"]) == 0
    assert "1 clips" in capsys.readouterr().out, "the npy with a rate"
    assert shards(["index", "a/{0..1}.tar"]) == 2
    assert "shard folder a does not exist" in capsys.readouterr().err
    assert shards(["index", "{a,b}/0.tar"]) == 2
    assert "names tars of 2 folders, such as a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{0000000000..9999999999}", "names more than 1,048,576 tars"),
        ("{0..9}" * 8, "names more than 1,048,576 tars"),
        ("{a,b}" * 30, "names more than 1,048,576 tars"),
        ("{0..9" + 5_000 * "0" + "}", "names more than 1,048,576 tars"),
        ("{1{2,3}", "close each brace"),
    ],
)
def test_brace_list_without_end_is_refused_before_it_is_written_out(names, message):
    with pytest.raises(UserError, match=message):
        find_tars(f"/data/{names}.tar")
    assert len(find_tars("/data/{000..099}.tar")) == 100


def test_more_clips_than_can_be_are_refused(tmp_path, capsys):
    command = ["--dataset", "ou", "--num_clips", "99999999999", "--output_dir", str(tmp_path / "o")]
    assert shards(command) == 2
    assert "--num_clips is 1e+11, but must be above 0 and at most" in capsys.readouterr().err
