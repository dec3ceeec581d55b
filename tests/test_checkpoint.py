"""The files of a checkpoint: put together again from any cut, verified, kept and named safely."""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sdevid import checkpoint
from sdevid.atomic_file import replace_text
from sdevid.checkpoint import Manifest, ParameterShard, Progress, Slice
from sdevid.errors import UserError

RANDOM = checkpoint.random_state()
SHAPES = {"a.weight": [3, 4], "a.bias": [4], "scale": []}


def cut(tensors: dict[str, torch.Tensor], ranks: int, padding: int) -> list[ParameterShard]:
    """All parameters end to end, padded, in equal ranges: one shard a rank."""
    flat = torch.cat([t.flatten() for t in tensors.values()] + [torch.zeros(padding)])
    size = -(-len(flat) // ranks)
    flat = torch.cat([flat, torch.zeros(size * ranks - len(flat))])
    shards = []
    for left in range(0, size * ranks, size):
        slices, place = [], 0
        for name, tensor in tensors.items():
            first, last = max(place, left), min(place + tensor.numel(), left + size)
            if first < last:
                slices.append(Slice(name, first - place, first - left, last - first))
            place += tensor.numel()
        shards.append(ParameterShard(flat[left : left + size].clone(), slices))
    return shards


def write(folder: Path, ranks: int = 2, padding: int = 0, step: int = 1) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: torch.arange(math.prod(shape)).float().reshape(shape) + i
        for i, (name, shape) in enumerate(SHAPES.items())
    }
    for rank, shard in enumerate(cut(weights, ranks, padding)):
        checkpoint.write_rank(folder, rank, [shard], [shard.tensor * 2], RANDOM)
    save_file({"steps": torch.tensor([7])}, folder / "buffers.safetensors")
    files = {
        path.name: (path.stat().st_size, checkpoint.digest(path))
        for path in checkpoint.files_of(folder)
    }
    manifest = Manifest(checkpoint.FORMAT, 4 * step, step, ranks, 2, SHAPES, files)
    checkpoint.publish(folder, checkpoint.folder_of(folder.parents[1], step), manifest)
    return weights


@given(ranks=st.integers(1, 6), padding=st.integers(0, 5))
def test_weights_are_the_same_however_the_ranks_cut_them(ranks, padding):
    with tempfile.TemporaryDirectory() as name:
        weights = write(Path(name) / "checkpoints" / ".partial", ranks, padding)
        folder = checkpoint.folder_of(Path(name), 1)
        raw, ema = (checkpoint.read_weights(folder, which) for which in ("raw", "ema"))
    assert raw.pop("steps").item() == ema.pop("steps").item() == 7
    assert list(raw) == list(weights)
    for tensor_name, weight in weights.items():
        assert torch.equal(raw[tensor_name], weight)
        assert torch.equal(ema[tensor_name], 2 * weight)


@given(ranks=st.integers(1, 5), padding=st.integers(0, 5), others=st.integers(1, 5))
def test_rank_reads_its_own_slices_from_any_other_cut(ranks, padding, others):
    with tempfile.TemporaryDirectory() as name:
        weights = write(Path(name) / "checkpoints" / ".partial", ranks, padding)
        shards = cut(weights, others, 3)
        expected = [2 * shard.tensor for shard in shards]
        for shard in shards:
            shard.tensor.fill_(torch.nan)
        checkpoint.read_slices(checkpoint.folder_of(Path(name), 1), "ema", shards)
    assert all(torch.equal(p.tensor, e) for p, e in zip(shards, expected, strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "checkpoints" / ".partial")
    return checkpoint.folder_of(tmp_path, 1)


def test_whole_checkpoint_has_no_faults(folder):
    assert checkpoint.faults(folder, checkpoint.read_manifest(folder)) == []


def test_every_kind_of_damage_is_a_fault_that_names_the_file(folder):
    manifest = checkpoint.read_manifest(folder)
    (folder / "layout-00000.json").unlink()
    with (folder / "ema-00000.safetensors").open("ab") as file:
        file.write(b"x")
    turned = bytearray((folder / "raw-00001.safetensors").read_bytes())
    turned[-1] ^= 1
    (folder / "raw-00001.safetensors").write_bytes(turned)
    assert [fault.split()[0] for fault in checkpoint.faults(folder, manifest)] == [
        "ema-00000.safetensors",
        "layout-00000.json",
        "raw-00001.safetensors",
    ]


def test_ranks_share_the_work_of_verifying(folder):
    manifest = checkpoint.read_manifest(folder)
    for path in checkpoint.files_of(folder):
        path.unlink()
    shares = [checkpoint.faults(folder, manifest, slice(r, None, 3)) for r in range(3)]
    assert sorted(chain.from_iterable(shares)) == checkpoint.faults(folder, manifest)


def test_missing_rank_is_an_error_that_names_a_tensor(folder):
    for path in folder.glob("*-00001.*"):
        path.unlink()
    with pytest.raises(UserError, match=r"of the \d+ elements of a\.weight|a\.bias|scale"):
        checkpoint.read_weights(folder, "ema")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_manifest_that_cannot_be_read_is_an_error(text, folder):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="checkpoint"):
        checkpoint.read_manifest(folder)


def edited(folder: Path, **fields: object) -> None:
    """Change fields of a manifest, leaving its hash as it was."""
    path = folder / "manifest.json"
    text = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps(text), encoding="utf-8")


@pytest.mark.parametrize(
    "fields",
    [
        {"clips": 5},
        {"clips": "4"},
        {"step": 2},
        {"files": {}},
        {"files": []},
        {"world_size": 3},
        {"parameters": {"a": [1]}},
        {"probe": 0.5},
        {"data": {"clips": 7}},
        {"total_clips": 8},
        {"faults": {"rollbacks": 1}},
        {"sha256": "0" * 64},
        {"sha256": None},
    ],
)
def test_manifest_with_any_field_changed_is_damage(folder, fields):
    edited(folder, **fields)
    with pytest.raises(UserError, match=r"is no whole checkpoint: manifest\.json"):
        checkpoint.read_manifest(folder)


@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_manifest_with_a_flipped_bit_is_damage_or_unchanged(place, bit):
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "checkpoints" / ".partial")
        folder = checkpoint.folder_of(Path(name), 1)
        before, path = checkpoint.read_manifest(folder), folder / "manifest.json"
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1 << bit
        path.write_bytes(data)
        with suppress(UserError):
            assert checkpoint.read_manifest(folder) == before  # a blank, or a letter's escape


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 200_000,
        "[" * 200_000,
        "\0" * 100,
        "9" * 5_000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_manifest_that_no_parser_should_see_is_damage(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match="checkpoint"):
        checkpoint.read_manifest(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_manifest_names_no_file_outside_its_folder(folder, name):
    manifest = checkpoint.read_manifest(folder)
    outside = checkpoint.signed(replace(manifest, files=manifest.files | {name: (1, "0")}))
    (folder / "manifest.json").write_text(json.dumps(asdict(outside)), encoding="utf-8")
    with pytest.raises(UserError, match="outside the folder"):
        checkpoint.read_manifest(folder)


@pytest.mark.parametrize("other", ["step_2", "step_0001"])
def test_folder_of_another_step_is_damage(folder, other):
    other_folder = folder.rename(folder.with_name(other))
    with pytest.raises(UserError, match=f"it is of step 1, but the folder is {other}"):
        checkpoint.read_manifest(other_folder)


@pytest.mark.parametrize("number", ["007", "\u00b2", "9" * 200, "-1", ""])
def test_folder_without_a_plain_number_is_no_checkpoint(tmp_path, number):
    write(tmp_path / "checkpoints" / ".partial")
    (tmp_path / "checkpoints" / f"step_{number}").mkdir()
    assert checkpoint.steps(tmp_path) == [1]


def test_checkpoint_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "checkpoints" / ".partial")
    finally:
        os.umask(before)
    folder = checkpoint.folder_of(tmp_path, 1)
    rights = {p.name: p.stat().st_mode & 0o777 for p in folder.glob("*-0*.safetensors")}
    assert set(rights.values()) == {0o640}, rights


def test_layout_of_format_1_is_still_read(folder):
    before = checkpoint.read_weights(folder, "ema")
    for path in folder.glob("layout-*.json"):
        text = path.read_text(encoding="utf-8").replace("in_shard", "in_piece")
        path.write_text(text, encoding="utf-8")
    after = checkpoint.read_weights(folder, "ema")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_latest_names_the_last(tmp_path):
    for step in (1, 2, 10, 9):
        write(tmp_path / "checkpoints" / ".partial", step=step)
    assert checkpoint.steps(tmp_path) == [10, 9, 2, 1]
    name, sha256 = (tmp_path / "latest").read_text(encoding="utf-8").splitlines()
    assert name == "checkpoints/step_9"
    assert sha256 == checkpoint.read_manifest(tmp_path / name).sha256
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_random_numbers_go_on_where_they_were(tmp_path):
    torch.manual_seed(3)
    torch.rand(5)
    average = torch.zeros(2)
    checkpoint.write_rank(
        tmp_path,
        0,
        [ParameterShard(torch.ones(2), [Slice("a", 0, 0, 2)])],
        [average + 5],
        checkpoint.random_state(),
    )
    expected = torch.rand(5)
    torch.manual_seed(4)
    checkpoint.read_rank(tmp_path, 0, [average])
    assert torch.equal(torch.rand(5), expected)
    assert average.tolist() == [5, 5]


def test_first_tensor_that_differs_is_told():
    here = {name: tuple(shape) for name, shape in SHAPES.items()}
    assert checkpoint.first_difference(SHAPES, here) is None
    other = here | {"a.bias": (5,)}
    assert checkpoint.first_difference(SHAPES, other) == (
        "a.bias has shape (4,) in it and (5,) in this model"
    )
    assert checkpoint.first_difference(SHAPES, here | {"b": (1,)}) == "b of shape (1,) is not in it"
    fewer = {name: here[name] for name in ("a.weight", "a.bias")}
    assert "scale of shape ()" in str(checkpoint.first_difference(SHAPES, fewer))


def test_settings_that_differ_are_named_with_dots():
    saved = {"a": 1, "b": {"c": 2, "d": 3}, "gone": 0}
    here = {"a": 1, "b": {"c": 2, "d": 4}, "new": 5}
    assert set(checkpoint.differences(saved, here)) == {"b.d", "gone", "new"}


@given(size=st.integers(1, 50), every=st.integers(1, 200), steps=st.integers(1, 100))
def test_progress_passes_each_multiple_once(size, every, steps):
    progress, passed = Progress(), 0
    for _ in range(steps):
        progress.advance(size)
        passed += progress.passed(every, size)
    assert progress == Progress(steps * size, steps)
    assert passed == min(steps * size // every, steps) or every < size


def test_reader_of_a_replaced_file_never_sees_half_of_it(tmp_path):
    path = tmp_path / "exit.json"
    replace_text(path, json.dumps({"reason": "done"}))
    with path.open() as reader:
        replace_text(path, "x" * 10_000)
        assert json.load(reader) == {"reason": "done"}
    assert path.read_text() == "x" * 10_000


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_manifest_that_is_no_regular_file_is_damage_and_holds_nobody_up(tmp_path, make):
    make(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="it is no regular file"):
        checkpoint.read_manifest(tmp_path)


def test_shapes_beyond_the_files_are_refused_before_memory_is_asked_for(tmp_path):
    write(tmp_path / "checkpoints" / "partial")
    folder = checkpoint.folder_of(tmp_path, 1)
    manifest = checkpoint.read_manifest(folder)
    huge = checkpoint.signed(replace(manifest, parameters=SHAPES | {"scale": [2**40, 2**10]}))
    (folder / "manifest.json").write_text(json.dumps(asdict(huge)), encoding="utf-8")
    with pytest.raises(UserError, match="but its files have"):
        checkpoint.read_weights(folder, "raw")


@pytest.mark.parametrize(
    "layout",
    ["[]", "{", '{"000000": [{"name": "none", "in_parameter": 0, "in_shard": 0, "count": 1}]}']
    + [
        f'{{"000000": [{{"name": "scale", "in_parameter": {p}, "in_shard": {s}, "count": {c}}}]}}'
        for p, s, c in ((0, 0, 2), (1, 0, 1), (0, 10**6, 1), (-1, 0, 1), (0, 0, '"1"'))
    ],
)
def test_layout_that_misplaces_a_slice_is_damage(tmp_path, layout):
    write(tmp_path / "checkpoints" / "partial")
    folder = checkpoint.folder_of(tmp_path, 1)
    (folder / "layout-00000.json").write_text(layout, encoding="utf-8")
    with pytest.raises(UserError, match="use another checkpoint"):
        checkpoint.read_weights(folder, "raw")
