"""The binary index says what the clips are, lazily, and whatever its bytes never more than that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdevid.config import parse
from sdevid.data.columns import Columns, columns_name, encode_columns
from sdevid.data.cut.tally import SplitTally
from sdevid.data.entry import ClipEntry, DamagedClipError, Member
from sdevid.data.folder import LocalFolder
from sdevid.data.index import ClipTable, read_index
from sdevid.data.payload import encode
from sdevid.data.shard_file import FORMAT, ShardFile, write_indices, write_json
from sdevid.data.shards import open_shards
from sdevid.data.stream import check_clips, steps
from sdevid.errors import UserError

SHARDS, CLIPS = 4, 3
TAR = 2**40
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
hashes = st.binary(min_size=16, max_size=16).filter(any)
members = st.builds(
    Member,
    st.integers(0, TAR // 2),
    st.integers(0, TAR // 2),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.none() | hashes.map(bytes.hex),
)
entries = st.builds(
    ClipEntry,
    st.just("a.tar"),
    texts,
    texts,
    st.just("") | texts,
    st.integers(1, 64),
    st.floats(1e-9, 1e9),
    st.integers(1, 1024),
    st.integers(1, 1024),
    st.integers(1, 64),
    st.builds(
        lambda payload, member, more: {payload: member} | more,
        st.sampled_from(["npy", "jpg", "mp4"]),
        members,
        st.dictionaries(st.sampled_from(["json", "txt", "text.npy"]), members),
    ),
)


@given(st.lists(entries, max_size=6))
def test_columns_give_back_the_clips(clips):
    columns = Columns("a.tar", memoryview(encode_columns(clips, TAR)))
    assert list(columns) == clips
    assert columns.kinds == {clip.kind for clip in clips}
    assert columns.tar_size == TAR


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of three clips."""
    tally = SplitTally()
    for number in range(SHARDS):
        shard = ShardFile(tmp_path, f"train-{number:06d}.tar")
        for k in range(CLIPS):
            video = np.full((4, 16, 16, 1), 10 * number + k, np.uint8)
            meta = {"source": f"{number}.mp4", "label": "", "num_frames": 4, "fps": 8.0}
            meta |= {"height": 16, "width": 16, "channels": 1, "caption": "a dog"}
            shard.add(f"{number}-{k}", meta, {"npy": encode("npy", video, 8.0)})
        shard.close()
        tally.add(tmp_path, shard.path.name, read_index(LocalFolder(tmp_path), shard.path.name))
    write_json(tmp_path / "dataset.json", {"format": FORMAT, "splits": {"train": tally.as_json()}})
    return tmp_path


CONFIG = parse(
    {"frame_size": 16, "channels": 1, "sequence_length": 4, "batch_size": 4}
    | {"observation": {"max_context": 2}}
)


def keys(folder: Path) -> list[str]:
    """Of two epochs in their order."""
    batches = steps(open_shards(folder, "train"), CONFIG, 0, 1, 0)
    return [key for _ in range(6) for batch in next(batches) for key in batch.keys]


def test_order_and_clips_are_those_of_the_json_index(folder):
    binary = keys(folder)
    dataset = json.loads((folder / "dataset.json").read_text())
    del dataset["splits"]["train"]["indices"], dataset["splits"]["train"]["kinds"]
    write_json(folder / "dataset.json", dataset)
    for path in folder.glob("*.index.npy"):
        path.unlink()
    assert keys(folder) == binary
    assert sorted(binary[: SHARDS * CLIPS]) == sorted(binary[SHARDS * CLIPS :])


def test_start_opens_no_index(folder, monkeypatch):
    opened = []
    mapped = LocalFolder.mapped
    monkeypatch.setattr(
        LocalFolder, "mapped", lambda self, *name: (opened.append(name), mapped(self, *name))[1]
    )
    index = open_shards(folder, "train")
    check_clips(index, CONFIG)
    assert (len(index), index.shard_sizes, opened) == (SHARDS * CLIPS, [CLIPS] * SHARDS, [])
    assert index.clips[4].key == "1-1"
    assert [name for name, _ in opened] == [columns_name("train-000001.tar")]


def test_clips_that_do_not_fit_are_told_at_the_start(folder):
    with pytest.raises(UserError, match=r"frames of 16x16 \(clip 0-0\); set frame_size=16"):
        check_clips(open_shards(folder, "train"), CONFIG.model_copy(update={"frame_size": 32}))


def test_index_of_another_tar_is_damage(folder):
    one, other = (folder / columns_name(f"train-00000{n}.tar") for n in (1, 2))
    one.write_bytes(other.read_bytes())
    index = open_shards(folder, "train")
    assert index.read(0).key == "0-0"
    with pytest.raises(DamagedClipError, match=r"another sha256 than dataset\.json says"):
        index.read(CLIPS)
    batch = next(steps(index, CONFIG, 0, 1, 0))[0]
    assert len(batch.keys) == 4
    assert not any(key.startswith("1-") for key in batch.keys)


def test_missing_index_is_named_at_the_start(folder):
    (folder / columns_name("train-000002.tar")).unlink()
    with pytest.raises(UserError, match=r"train-000002.index.npy does not read \(it is missing\)"):
        open_shards(folder, "train")


def test_kinds_that_dataset_json_does_not_name_are_damage(folder):
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["splits"]["train"]["kinds"][0]["channels"] = 3
    write_json(folder / "dataset.json", dataset)
    with pytest.raises(DamagedClipError, match=r"kind that dataset\.json does not name"):
        open_shards(folder, "train").read(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "num_frames: clip 1 is out of 1 to"),
        ({"fps": float("nan")}, "fps: clip 1 is out of"),
        ({"fps": float("inf")}, "fps: clip 1 is out of"),
        ({"channels": 65}, "channels: clip 1 is out of 1 to 64"),
        ({"height": 60_000, "width": 60_000, "num_frames": 1_000}, "clip 1 has more than 8 GiB"),
        ({"members": {}}, "members of clip 1"),
        ({"members": {"json": Member(0, 1, "0" * 64)}}, "one of npy, jpg, mp4"),
        ({"members": {"npy": Member(2**50, 1, "0" * 64)}}, "beyond the tar's"),
        ({"members": {"npy": Member(-1, 1, "0" * 64)}}, "beyond the tar's"),
        ({"key": "a\n\x1b[31m"}, "is out of form"),
    ],
)
def test_numbers_out_of_their_range_are_damage(folder, change, message):
    shard, tally = "train-000000.tar", SplitTally()
    clips = read_index(LocalFolder(folder), shard)
    for name, value in change.items():
        object.__setattr__(clips[1], name, value)
    write_indices(folder, shard, clips, (folder / shard).stat().st_size)
    tally.add(folder, shard, clips)
    metadata = tally.as_json()
    metadata["kinds"] = [clips[0].kind._asdict()]
    write_json(folder / "dataset.json", {"format": FORMAT, "splits": {"train": metadata}})
    with pytest.raises(DamagedClipError, match=message):
        open_shards(folder, "train").read(1)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_a_binary_index_is_clips_or_a_value_error(folder, data):
    content = bytearray((folder / columns_name("train-000000.tar")).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=12))
    try:
        clips = list(Columns("train-000000.tar", memoryview(bytes(content))))
    except ValueError:
        return
    assert all(0 <= m.offset <= m.offset + m.size for c in clips for m in c.members.values())


def test_table_of_entries_counts_its_shards(folder):
    clips = list(open_shards(folder, "train").clips)
    table = ClipTable.of(str(folder), clips)
    assert list(table) == clips
    assert (table.sizes, list(table[2:4])) == ([CLIPS] * SHARDS, clips[2:4])
    assert table.clip_ranges("train-000001.tar") == [range(CLIPS, 2 * CLIPS)]
