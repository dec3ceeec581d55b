"""Shards are read back by offset, by anyone's reader, and say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import webdataset

from sdevid.data.payload import EXTENSION, Store, encode
from sdevid.data.shard_file import FORMAT, ShardFile, index_name, write_json
from sdevid.data.shards import open_shards
from sdevid.errors import UserError


def video(number: int) -> np.ndarray:
    return np.full((4, 16, 16, 3), 10 * number, np.uint8)


def write(folder: Path, store: Store = "npy", clips: int = 5) -> Path:
    """Two train shards of up to three clips each."""
    folder.mkdir(exist_ok=True)
    names = [f"train-{n:06d}.tar" for n in range(-(-clips // 3))]
    for first, name in zip(range(0, clips, 3), names, strict=True):
        shard = ShardFile(folder, name)
        for number in range(first, min(first + 3, clips)):
            meta = {"source": f"{number}.mp4", "label": "a b", "caption": "é", "start": 0.0}
            meta |= {"fps": 8.0, "num_frames": 4, "height": 16, "width": 16, "channels": 3}
            shard.add(f"clip-{number}", meta, {EXTENSION[store]: encode(store, video(number), 8.0)})
        shard.close()
    splits = {"train": {"clips": clips, "videos": clips, "shards": names}}
    write_json(folder / "dataset.json", {"format": FORMAT, "splits": splits})
    return folder


@pytest.mark.parametrize("store", ["npy", "jpeg", "mp4"])
def test_clips_come_back_in_any_order(tmp_path, store):
    index = open_shards(write(tmp_path, store), "train")
    assert len(index) == 5
    for i in (4, 0, 3, 1):
        clip = index.read(i)
        assert clip.key == f"clip-{i}"
        assert clip.meta["caption"] == "é"
        assert np.abs(clip.video.astype(int) - video(i)).max() <= 3
    index.close()


def test_plain_webdataset_reads_the_tars(tmp_path):
    write(tmp_path)
    tars = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"clip-{i}" for i in range(5)]
    index = open_shards(tmp_path, "train")
    for sample, entry in zip(samples, index.clips, strict=True):
        assert json.loads(sample["json"])["source"] == entry.source
        assert sample["npy"] == index.read_member(entry, "npy")


def test_same_clips_give_the_same_bytes(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert sorted(path.name for path in one.iterdir()) == sorted(p.name for p in two.iterdir())
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_shard_is_not_there_before_it_is_whole(tmp_path):
    shard = ShardFile(tmp_path, "train-000000.tar")
    assert not list(tmp_path.glob("*.tar"))
    shard.discard()
    assert not list(tmp_path.iterdir())


def test_torn_tar_names_the_clip(tmp_path):
    path = write(tmp_path) / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:2000])
    index = open_shards(tmp_path, "train")
    assert index.read(2).key == "clip-2"
    with pytest.raises(UserError, match=r"clip clip-4 of .*train-000001.tar is damaged"):
        index.read(4)


def test_missing_tar_is_named(tmp_path):
    (write(tmp_path) / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000.tar is damaged: the shard is missing"):
        open_shards(tmp_path, "train").read(0)


def _missing(folder: Path) -> Path:
    return folder / "nothing"


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _unfinished(folder: Path) -> Path:
    (write(folder) / "dataset.json").unlink()
    return folder


def _other_format(folder: Path) -> Path:
    write_json(write(folder) / "dataset.json", {"format": 99, "splits": {}})
    return folder


def _bad_json(folder: Path) -> Path:
    (write(folder) / "dataset.json").write_text("{")
    return folder


def _bad_index(folder: Path) -> Path:
    write_json(write(folder) / index_name("train-000001.tar"), {"clips": [{"members": {}}]})
    return folder


def _no_index(folder: Path) -> Path:
    (write(folder) / index_name("train-000001.tar")).unlink()
    return folder


def _no_clips(folder: Path) -> Path:
    splits = {"train": {"clips": 0, "videos": 0, "shards": []}}
    write_json(folder / "dataset.json", {"format": FORMAT, "splits": splits})
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "does not exist"),
        (_empty, "is empty"),
        (_unfinished, "no dataset.json"),
        (_other_format, "format 99"),
        (_bad_json, "is not read as JSON"),
        (_bad_index, "lacks or misnames a field"),
        (_no_index, "does not read"),
        (_no_clips, "holds no clip"),
    ],
)
def test_bad_folder_is_told(tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        open_shards(spoil(tmp_path), "train")


def test_unknown_split_names_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"'val' is not in .*; it has train"):
        open_shards(write(tmp_path), "val")


def test_index_without_the_quicker_hash_is_checked_by_sha256(tmp_path):
    folder = write(tmp_path)
    for path in folder.glob("*.index.json"):
        content = json.loads(path.read_text())
        for clip in content["clips"]:
            for member in clip["members"].values():
                assert len(member.pop("xxh3")) == 32
        write_json(path, content)
    assert np.array_equal(open_shards(folder, "train").read(0).video, video(0))
    with (folder / "train-000000.tar").open("r+b") as tar:
        tar.seek(open_shards(folder, "train").clips[0].members["npy"].offset + 500)
        tar.write(b"\xff")
    with pytest.raises(UserError, match="its npy has another sha256 than the index says"):
        open_shards(folder, "train").read(0)
