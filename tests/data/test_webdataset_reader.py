"""Tars without an index: each clip once an epoch, over all ranks, and over a resume."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import webdataset as wds

from sdevid.cli.shards import main as shards
from sdevid.config import Config, parse
from sdevid.data import webdataset_reader
from sdevid.data.cut.verify import check_shard
from sdevid.data.payload import decode, encode
from sdevid.data.shards import open_shards
from sdevid.data.tar_sample import decode_sample
from sdevid.data.webdataset_reader import TarReader, open_tars
from sdevid.errors import UserError
from sdevid.types import Batch

TARS, EACH = 4, 6
CLIPS = TARS * EACH


def npy(value: int, frames: int = 8) -> bytes:
    buffer = io.BytesIO()
    frame = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    np.save(buffer, np.broadcast_to(10 * value + frame, (frames, 16, 16, 3)))
    return buffer.getvalue()


def avi(frames: int = 8) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height = stream.width = 16
        stream.pix_fmt = "bgr0"
        for value in range(frames):
            pixels = np.full((16, 16, 3), 20 * value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def write(path: Path, *samples: tuple[str, dict[str, Any]]) -> Path:
    with wds.TarWriter(str(path), encoder=False) as tar:
        for key, members in samples:
            tar.write({"__key__": key, **members})
    return path


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """As many tars as there may be lanes; the key of a clip is the number in its pixels."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for n in range(TARS):
        numbers = range(n * EACH, (n + 1) * EACH)
        write(
            folder / f"{n:03d}.tar", *((f"{k:02d}", {"npy": npy(k), "txt": b"a"}) for k in numbers)
        )
    return folder


def config(data: Path | str, **changes: object) -> Config:
    settings: dict[str, Any] = {"frame_size": 16, "channels": 3, "sequence_length": 4}
    settings |= {"batch_size": 4, "encoder": {"map_size": 4}, "data": str(data)}
    settings["observation"] = {"max_context": 2}
    return parse(settings | {"data_reader": "webdataset", "max_clips": 1_000} | changes)


def readers(settings: Config, world: int, cursors: list[Any] | None = None) -> list[TarReader]:
    stream = open_tars(settings, world)
    return [TarReader(stream, rank, world, cursors or []) for rank in range(world)]


def taken(steps: list[Iterator[list[Batch]]], count: int) -> list[str]:
    """Keys of the next batches of every rank."""
    batches = [batch for rank in steps for step in islice(rank, count) for batch in step]
    return [key for batch in batches for key in batch.keys]


ALL = [f"{k:02d}" for k in range(CLIPS)]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (2, 2), (4, 3)])
def test_epoch_holds_each_clip_once_over_ranks(tars, world, workers):
    steps = [r.steps(0) for r in readers(config(tars, data_workers=workers), world)]
    first, second = (taken(steps, CLIPS // 4) for _ in range(2))
    assert sorted(first) == sorted(second) == ALL
    assert first not in (second, ALL), "shuffled, and anew each epoch"


def test_batches_have_the_form_of_indexed_ones(tars):
    (reader,) = readers(config(tars), 1)
    ((batch,),) = islice(reader.steps(8), 1)
    assert batch.serial.tolist() == [8, 9, 10, 11]
    assert batch.video.shape == (4, 4, 16, 16, 3)
    assert batch.captions == ("a",) * 4
    assert torch.equal(batch.ticks[0], config(tars).frame_ticks(4))
    pixels = batch.video[:, :, 0, 0, 0].int() % 256
    starts = pixels - torch.arange(4) - 10 * torch.tensor([[int(key)] for key in batch.keys])
    assert set((starts % 256).flatten().tolist()) <= set(range(5)), "frames in order from a start"


@pytest.mark.parametrize("buffer", [3, 256])
@pytest.mark.parametrize(("workers", "seen"), [(0, 1), (0, 4), (2, 1), (2, 4), (2, 7)])
def test_resume_shows_the_rest_of_the_epoch_once(tars, monkeypatch, workers, seen, buffer):
    monkeypatch.setattr(webdataset_reader, "_BUFFER", buffer)
    settings = config(tars, data_workers=workers)
    ranks = readers(settings, 2)
    steps = [rank.steps(0) for rank in ranks]
    before = taken(steps, seen)
    cursors = json.loads(json.dumps([c for rank in ranks for c in rank.cursors()]))
    resumed = readers(settings, 2, cursors)
    assert not resumed[0].restarted
    epochs = -(-seen * 4 // CLIPS)
    after = taken([rank.steps(4 * seen) for rank in resumed], epochs * CLIPS // 4 - seen)
    assert Counter(before + after) == dict.fromkeys(ALL, epochs)


def test_resume_opens_no_tar_that_is_done(tars, monkeypatch):
    monkeypatch.setattr(webdataset_reader, "_BUFFER", 2)
    settings = config(tars)
    (reader,) = readers(settings, 1)
    steps = reader.steps(0)
    before = taken([steps], 4)
    (cursor,) = reader.cursors()
    assert (cursor["epoch"], cursor["tar"]) == (0, 2)
    assert {tar for _, tar, _ in cursor["pending"]} == {2}
    whole = [n for n in range(TARS) if set(ALL[n * EACH : (n + 1) * EACH]) <= set(before)]
    assert len(whole) == 2
    (resumed,) = readers(settings, 1, [cursor])
    for number in whole:
        (tars / f"{number:03d}.tar").unlink()
    assert sorted(before + taken([resumed.steps(16)], 2)) == ALL


def test_other_number_of_streams_begins_the_next_epoch(tars):
    two = readers(config(tars), 2)
    taken([rank.steps(0) for rank in two], 2)
    cursors = [c for rank in two for c in rank.cursors()]
    (one,) = readers(config(tars), 1, cursors)
    assert one.restarted
    assert sorted(taken([one.steps(8)], CLIPS // 4)) == ALL


def test_brace_lists_and_missing_tars(tars):
    stream = open_tars(config(f"{tars}/{{000..002}}.tar"), 1)
    assert stream.names == ["000.tar", "001.tar", "002.tar"]
    (reader,) = readers(config(f"{tars}/{{000..004}}.tar"), 1)
    with pytest.raises(UserError, match=r"004\.tar is not there"):
        taken([reader.steps(0)], 3)


def test_damage_is_passed_over_and_named(tars):
    faulty = [
        ("bad", {"npy": b"no array"}),
        ("odd", {"npy": npy(1, frames=2)}),
        ("x", {"jpg": b""}),
    ]
    write(tars / "000.tar", ("00", {"npy": npy(0)}), *faulty)
    torn = tars / "001.tar"
    torn.write_bytes(torn.read_bytes()[:9_000])
    (reader,) = readers(config(tars), 1)
    batches = [batch for step in islice(reader.steps(0), 4) for batch in step]
    reasons = {d.key: (d.shard, d.reason) for batch in batches for d in batch.damage}
    assert "its npy does not read" in reasons["bad"][1]
    assert "does not fit: sequence_length is 4" in reasons["odd"][1]
    assert "holds 0 videos, not one of npy, mp4, avi" in reasons["x"][1]
    assert reasons["(the rest)"][0] == "001.tar"
    assert len({key for batch in batches for key in batch.keys}) >= 13


def test_data_of_damage_alone_ends_with_a_sentence(tmp_path):
    write(tmp_path / "0.tar", ("bad", {"npy": b"no array"}))
    with pytest.raises(UserError, match=r"1000 samples in a row of .* the last: bad of 0\.tar"):
        open_tars(config(tmp_path), 1)


def test_object_arrays_are_never_unpickled(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    write(tmp_path / "0.tar", ("evil", {"npy": buffer.getvalue()}), ("good", {"npy": npy(1)}))
    (reader,) = readers(config(tmp_path), 1)
    ((batch,),) = islice(reader.steps(0), 1)
    assert set(batch.keys) == {"good"}
    assert all("not plain numbers" in damage.reason for damage in batch.damage)


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"max_clips": None}, 1, "max_clips is not set"),
        ({}, 5, "has 4 tars, but each of 5 ranks needs one"),
        ({"split": "val"}, 1, "tars without an index have none"),
        ({"frame_size": 32}, 1, "frame_size is 32, but the tars .* hold frames of 16x16"),
        ({"sequence_length": 9}, 1, "sequence_length is 9"),
    ],
)
def test_what_cannot_be_streamed_is_told(tars, changes, world, message):
    with pytest.raises(UserError, match=message):
        open_tars(config(tars, **changes), world)


def test_shards_with_an_index_are_not_streamed(tars):
    assert shards(["index", str(tars), "--fps", "8"]) == 0
    with pytest.raises(UserError, match="has an index"):
        open_tars(config(tars), 1)


def test_evaluation_says_that_it_needs_an_index(tars):
    with pytest.raises(UserError, match=r"shards index .*\(evaluation needs either\)"):
        open_shards(tars, "val")


def test_films_of_any_container_stream_and_are_indexed(tmp_path):
    content, whole = avi(), np.zeros((8, 16, 16, 3), np.uint8)
    write(tmp_path / "0.tar", ("a", {"avi": content}), ("m", {"mp4": encode("mp4", whole, 8.0)}))
    (reader,) = readers(config(tmp_path, sequence_length=8), 1)
    ((batch,),) = islice(reader.steps(0), 1)
    shown = dict(zip(batch.keys, batch.video, strict=True))
    assert shown["a"][:, 0, 0, 0].tolist() == [20 * value for value in range(8)]
    assert shards(["index", str(tmp_path)]) == 0
    index = open_shards(tmp_path, "train")
    assert [index.clips[k].extension for k in range(2)] == ["avi", "mp4"]
    assert np.array_equal(index.read(0).video, decode("avi", content, (8, 16, 16, 3)))


def test_check_of_indexed_tars_finds_damage_alone(tars):
    write(tars / "000.tar", ("dir/a", {"NPY": npy(1), "txt": b"a"}), ("p", {"jpg": b"picture"}))
    assert shards(["index", str(tars), "--fps", "8"]) == 0
    assert [check_shard(str(tars), f"00{n}.tar", True).faults for n in (0, 1)] == [(), ()]
    content = bytearray((tars / "000.tar").read_bytes())
    content[content.index(b"NUMPY") + 200] ^= 1
    (tars / "000.tar").write_bytes(content)
    (fault,) = check_shard(str(tars), "000.tar", True).faults
    assert "member dir/a.NPY has another sha256" in fault


def test_index_of_arrays_without_a_rate_asks_for_fps(tars, capsys):
    assert shards(["index", str(tars)]) == 2
    assert "states no fps; give --fps" in capsys.readouterr().err
    assert shards(["index", str(tars), "--fps", "30000/1001"]) == 0
    assert open_shards(tars, "train").clips[0].fps == pytest.approx(29.97003)


def test_tars_behind_a_url_stream_and_are_indexed_apart(tars, web, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    web.folder, location = tars, f"{web.url}/{{000..003}}.tar"
    (reader,) = readers(config(location), 1)
    assert sorted(taken([reader.steps(0)], CLIPS // 4)) == ALL
    assert shards(["index", location, "--fps", "8"]) == 0
    assert len(open_shards(location, "train")) == CLIPS
    apart = tmp_path / "apart"
    assert shards(["index", location, "--fps", "8", "--output_dir", str(apart)]) == 0
    for path in apart.iterdir():
        path.rename(tars / path.name)
    assert len(open_shards(web.url, "train")) == CLIPS


@pytest.mark.parametrize(
    ("member", "named"),
    [
        ({"npy": np.zeros((8, 16, 16, 1), np.uint16)}, "uint16 .* sdevid shards cuts arrays"),
        ({"npy": np.zeros((8, 16, 16, 1), np.uint8), "mask": b""}, "has a mask of what was not"),
    ],
)
def test_what_a_stream_does_not_keep_is_refused(member, named):
    """Depth and masks of arrays need the transform and the index that dataset.json holds."""
    buffer = io.BytesIO()
    np.save(buffer, member["npy"])
    with pytest.raises(ValueError, match=named):
        decode_sample(member | {"npy": buffer.getvalue()}, parse({"fps": 8}))
