"""Shards of any origin: whatever their bytes, a clip is whole, or damaged with a reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdevid.config import load, parse
from sdevid.data.cut.verify import check_shard
from sdevid.data.npy import read_npy
from sdevid.data.open import open_folder
from sdevid.data.payload import EXTENSION, Store, decode, encode
from sdevid.data.schema import MOST_BYTES, parse_meta
from sdevid.data.shard_file import FORMAT, ShardFile, index_name, write_json
from sdevid.data.shards import DamagedClipError, open_shards, read_dataset
from sdevid.data.stream import steps
from sdevid.errors import UserError

SHAPE = (4, 16, 16, 1)
VIDEO = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
META = {"source": "a.mp4", "label": "", "num_frames": 4, "fps": 8.0}
META |= {"height": 16, "width": 16, "channels": 1, "caption": "a dog"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One shard of three clips."""
    shard = ShardFile(tmp_path, "train-000000.tar")
    for k in range(3):
        shard.add(f"{k:06d}", META, {"npy": encode("npy", VIDEO, 8.0)})
    shard.close()
    dataset = {"format": FORMAT, "splits": {"train": {"clips": 3, "shards": [shard.path.name]}}}
    write_json(tmp_path / "dataset.json", dataset)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the index."""
    path = folder / index_name("train-000000.tar")
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def append(folder: Path, extension: str, content: bytes, instead: str | None = None) -> None:
    """Give clip 0 another member, with the right hash."""
    tar = folder / "train-000000.tar"
    offset = tar.stat().st_size
    with tar.open("ab") as file:
        file.write(content)

    def change(index: dict[str, Any]) -> None:
        members = index["clips"][0]["members"]
        members.pop(instead or extension)
        sha256 = hashlib.sha256(content).hexdigest()
        members[extension] = {"offset": offset, "size": len(content), "sha256": sha256}
        index["size"] = offset + len(content)

    rewrite(folder, change)


def reason(folder: Path) -> str:
    """Why clip 0 does not read; the others do."""
    index = open_shards(folder, "train")
    assert np.array_equal(index.read(1).video, VIDEO)
    with pytest.raises(DamagedClipError) as fault:
        index.read(0)
    return fault.value.reason


def npy(header: str) -> bytes:
    padded = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 16, 16, 1)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1024,)}",
        "(" * 110,
    ],
)
def test_npy_that_lies_is_damage(folder, header):
    append(folder, "npy", npy(header))
    assert "payload does not decode" in reason(folder)


@given(st.sampled_from(["u1", "<u2", ">u2", "f2", "f4", "f8", "?"]), st.booleans())
def test_read_npy_reads_what_numpy_writes(kind, fortran):
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    buffer = io.BytesIO()
    np.save(buffer, np.asfortranarray(values) if fortran else values)
    np.testing.assert_array_equal(read_npy(buffer.getvalue()), values)


def test_jpeg_that_opens_to_much_is_not_opened(folder, monkeypatch):
    sheet = np.zeros((4096, 4096, 1), np.uint8)
    bomb = simplejpeg.encode_jpeg(sheet, colorspace="GRAY", colorsubsampling="Gray")
    append(folder, "jpg", bomb, instead="npy")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("was decoded"))
    assert "a sheet of 4096 x 4096 pixels is not that of" in reason(folder)


def test_mp4_of_larger_frames_is_not_decoded(folder):
    large = np.zeros((4, 512, 512, 1), np.uint8)
    append(folder, "mp4", encode("mp4", large, 8.0), instead="npy")
    assert "payload does not decode" in reason(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 3_000,
        b"[1, 2]",
        b"null",
        b"\xff\xfe",
        b'{"caption": "a \\ud800 b"}',
        b'{"caption": ["a"]}',
        b'{"caption": 7}',
        b'{"label": NaN}',
        b'{"captions": [1]}',
        b'{"caption": "' + b"x" * 70_000 + b'"}',
        b'{"x": "' + b"x" * MOST_BYTES["KEY.json"] + b'"}',
    ],
)
def test_key_json_out_of_form_is_damage(folder, content):
    append(folder, "json", content)
    assert reason(folder)


def batch_without_clip_0(folder: Path) -> str:
    """Why clip 0 is damaged in a batch that another clip fills."""
    config = parse(factories.settings(batch_size=3, sequence_length=4))
    (batch,) = next(steps(open_shards(folder, "train"), config, 0, 1, 0))
    assert not batch.video.float().isinf().any()
    assert (batch.ticks.diff(dim=1) > 0).all()
    assert "000000" not in batch.keys
    (damage,) = {one.reason for one in batch.damage}
    return damage


@pytest.mark.parametrize(
    ("ticks", "per_second", "named"),
    [
        ([0, 1], 8, "tells the times of 2 frames alone"),
        ([0, 1, 2, 3], 10**12, "that are not 1.63e-06 to"),
        ([0, 1, 2, 2**50], 1, "that are not 1.63e-06 to 1.47e+10 s apart"),
    ],
)
def test_times_that_cannot_be_are_damage_of_their_clip(folder, ticks, per_second, named):
    times = {"ticks": ticks, "per_second": per_second}
    append(folder, "json", json.dumps(META | {"times": times}).encode())
    assert named in batch_without_clip_0(folder)


def test_infinite_values_are_damage_of_their_clip(tmp_path):
    shard = ShardFile(tmp_path, "train-000000.tar")
    for k in range(3):
        values = VIDEO.astype(np.float32) / 255
        values[1, 2, 3] = -np.inf if k == 0 else np.nan
        shard.add(f"{k:06d}", META, {"npy": encode("npy", values, 8.0)})
    shard.close()
    splits = {"train": {"clips": 3, "shards": [shard.path.name]}}
    transform = {"name": "range", "low": 0.0, "high": 1.0}
    dataset = {"format": FORMAT, "splits": splits, "dtype": "float32", "transform": transform}
    write_json(tmp_path / "dataset.json", dataset)
    assert "it holds infinite values" in batch_without_clip_0(tmp_path)


@pytest.mark.parametrize("field", ["offset", "size"])
@pytest.mark.parametrize("value", [-5, 2**70, 2**40, 512.5, "512", True, None, [1]])
def test_places_that_are_none_are_named(folder, field, value):
    rewrite(folder, lambda index: index["clips"][0]["members"]["npy"].update({field: value}))
    with pytest.raises(UserError, match=r"index .* out of its range"):
        open_shards(folder, "train")


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": 10**12},
        {"num_frames": 8.0},
        {"height": 0},
        {"channels": 10**9},
        {"fps": 0},
        {"label": ["a"]},
        {"key": "a\n\x1b[31m"},
        {"members": {}},
        {"height": 60_000, "width": 60_000, "num_frames": 1_000},
    ],
)
def test_clips_that_are_none_are_named(folder, change):
    rewrite(folder, lambda index: index["clips"][0].update(change))
    with pytest.raises(UserError, match=r"index .* out of its range"):
        open_shards(folder, "train")


@pytest.mark.parametrize(
    "splits",
    [
        None,
        {"train": []},
        {"train": {"shards": 5}},
        {"train": {"shards": [5]}},
        {"train": {"shards": ["/etc/x.tar"]}},
        {"train": {"shards": ["../x.tar"]}},
        {"train": {"shards": ["a\\b.tar"]}},
        {"train": {"shards": ["a\0.tar"]}},
        {"train": {"shards": [".hidden.tar"]}},
        {"a/b": {"shards": []}},
    ],
)
def test_dataset_json_out_of_form_is_named(folder, splits):
    write_json(folder / "dataset.json", {"format": FORMAT, "splits": splits})
    with pytest.raises(UserError, match=r"dataset\.json .* out of its range"):
        open_shards(folder, "train")


@pytest.mark.parametrize("name", ["dataset.json", index_name("train-000000.tar")])
def test_files_of_another_kind_and_without_end_are_named(folder, name):
    path = folder / name
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole
    with pytest.raises(UserError, match="more than"):
        open_shards(folder, "train")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        open_shards(folder, "train")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="a link to /dev/zero, outside"):
        open_shards(folder, "train")
    path.unlink()
    (folder / "other").write_bytes(content)
    path.symlink_to("other")
    assert len(open_shards(folder, "train")) == 3


@pytest.mark.parametrize("content", [b'{"a":' * 200_000, b"[]", b'{"channels": {}', b"\xff\xfe"])
def test_config_that_names_damaged_shards_loads_and_opening_them_is_refused(folder, content):
    (folder / "dataset.json").write_bytes(content)
    (folder / "run.yaml").write_text(f"frame_size: 16\ndata: {folder}\n")
    config = load(folder / "run.yaml")
    with pytest.raises(UserError, match=r"dataset\.json"):
        open_shards(config.data, "train")


def test_config_reads_no_dataset_json_without_end(folder):
    with (folder / "dataset.json").open("r+b") as file:
        file.truncate(2**40)  # a hole
    (folder / "run.yaml").write_text(f"frame_size: 16\ndata: {folder}\n")
    assert load(folder / "run.yaml").channels == 3


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[1]", b"null", b"\xff"])
def test_check_shards_names_a_key_json_out_of_form(folder, content):
    append(folder, "json", content)
    (fault,) = check_shard(str(folder), "train-000000.tar", True).faults
    assert "000000.json" in fault


def test_tar_that_is_a_link_outside_or_a_pipe_is_damage(folder, tmp_path_factory):
    tar, secret = folder / "train-000000.tar", tmp_path_factory.mktemp("other") / "secret"
    tar.rename(secret)
    tar.symlink_to(secret)
    with pytest.raises(DamagedClipError, match="outside of the folder"):
        open_shards(folder, "train").read(0)
    tar.unlink()
    os.mkfifo(tar)
    with pytest.raises(DamagedClipError, match="not a regular file"):
        open_shards(folder, "train").read(0)


def test_members_far_apart_in_a_sparse_tar_are_not_read(folder):
    tar = folder / "train-000000.tar"
    with tar.open("r+b") as file:
        file.truncate(2**40)
    append(folder, "json", b"{}")
    assert reason(folder) == "its members lie apart in the tar"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_an_index_is_read_or_refused_by_name(folder, data):
    name = data.draw(st.sampled_from(["dataset.json", index_name("train-000000.tar")]))
    path = folder / name
    before = path.read_text()
    content = json.loads(before)
    place: Any = content
    for _ in range(data.draw(st.integers(0, 4))):
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        if not keys or not isinstance(place[keys[0]], dict | list):
            break
        place = place[data.draw(st.sampled_from(list(keys)))]
        if not isinstance(place, dict | list) or not place:
            place = content
    keys = sorted(place) if isinstance(place, dict) else range(len(place))
    place[data.draw(st.sampled_from(list(keys)))] = data.draw(JSON)
    path.write_text(json.dumps(content))
    refusal = ""
    try:
        index = open_shards(folder, "train")
        videos = [index.read(k).video for k in range(len(index))]
    except UserError as error:
        videos, refusal = [], str(error)
    finally:
        path.write_text(before)
    assert videos or str(folder) in refusal
    assert {video.dtype for video in videos} <= {np.dtype(np.uint8)}


@settings(max_examples=150)
@given(st.sampled_from(["npy", "jpeg", "mp4"]), st.data())
def test_any_change_of_a_payload_decodes_or_is_a_value_error(store: Store, data):
    payload = bytearray(encode(store, VIDEO, 8.0))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=12))
    try:
        video = decode(EXTENSION[store], bytes(payload), SHAPE)
        assert video.shape == SHAPE
    except ValueError:
        pass


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_key_json_is_fields_or_a_value_error(content):
    with suppress(ValueError):
        assert isinstance(parse_meta(content), dict)


def test_text_encoder_out_of_form_is_named(folder):
    dataset = json.loads((folder / "dataset.json").read_text())
    write_json(folder / "dataset.json", dataset | {"text_encoder": {"width": -1}})
    with pytest.raises(UserError, match=r"text_encoder\.width is '-1'"):
        read_dataset(open_folder(folder))
