"""What is said of a clip, and its embedding, on their way from the cut to a batch."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from sdevid.config import Config, parse
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.embedding import TEXT, Embedder
from sdevid.data.folder import Access
from sdevid.data.index import ClipTable
from sdevid.data.payload import Store
from sdevid.data.shards import DamagedClipError, ShardIndex, open_shards
from sdevid.data.spec import CutClip, CutSpec
from sdevid.data.stream import fixed, steps
from sdevid.errors import UserError
from sdevid.models.frozen_text import FrozenText
from sdevid.types import Embedding

ROOT = Path(__file__).resolve().parents[2]
SPEC = CutSpec(16, 8.0, 4, 4, "crop", "npy")
SAID = [("", "left"), ("a ball", "right"), ("", ""), ("", "left")]  # caption and label


@dataclass(frozen=True)
class Flat:
    """A video of two clips, flat grey."""

    name: str
    caption: str
    label: str
    group: str = "all"
    split: str | None = None

    def identity(self) -> list[Any]:
        return [self.name, self.caption, self.label]

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        shape = (spec.clip_length, spec.frame_size, spec.frame_size, 1)
        for start in range(2):
            yield CutClip(self.name, float(start), np.full(shape, 30 * start, np.uint8))


def config(**changes: Any) -> Config:
    shape = {"frame_size": 16, "channels": 1, "sequence_length": 4, "encoder": {"map_size": 4}}
    return parse(shape | {"observation": {"max_context": 2}, "batch_size": 6} | changes)


def plan(
    message: list[tuple[str, str]], embed: Embedder | None = None, store: Store = "npy"
) -> Plan:
    sources = [("train", Flat(f"{i}.avi", *each)) for i, each in enumerate(message)]
    return Plan("custom", sources, replace(SPEC, store=store), 3, {}, embed=embed)


def worded(
    folder: Path,
    message: list[tuple[str, str]],
    embed: Embedder | None = None,
    store: Store = "npy",
) -> ShardIndex:
    cut(plan(message, embed, store), folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return embedded(folder, embed is not None)


def embedded(location: Path | str, read: bool = True, access: Access | None = None) -> ShardIndex:
    index = open_shards(location, "train", access)
    index.embedded = read
    return index


def test_batch_tells_the_caption_or_else_the_label(tmp_path):
    index = worded(tmp_path, SAID)
    batch = fixed(index, config(), range(8))
    assert batch.embeddings is None
    text = ["left", "a ball", "", "left"]
    assert batch.captions == tuple(caption for caption in text for _ in range(2))


@pytest.mark.parametrize(("message", "clips"), [(SAID, 6), ([("", "")] * 2, 0)])
def test_dataset_json_counts_the_clips_with_words(tmp_path, message, clips):
    assert worded(tmp_path, message).dataset["clips_with_words"] == clips


@pytest.fixture(scope="module")
def frozen(t5: Path) -> FrozenText:
    return FrozenText(t5, 128)


TOLD = [caption for caption in ("left", "a ball", "", "left") for _ in range(2)]


@pytest.mark.parametrize("store", ["npy", "jpeg"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_bring_the_embeddings_of_what_is_said(tmp_path, frozen, store, workers):
    index = worded(tmp_path, SAID, frozen, store)
    plain = worded(tmp_path / "plain", SAID, None, store)
    want = {
        clip.key: (frozen(metadata), i)
        for i, (clip, metadata) in enumerate(zip(index.clips, TOLD, strict=True))
    }
    for first in (0, 6):  # the second time around, what was verified is read in another way
        (batch,) = next(steps(index, config(data_workers=workers), 0, 1, first))
        assert batch.embeddings is not None
        for key, video, result in zip(batch.keys, batch.video, batch.embeddings, strict=True):
            embedding, number = want[key]
            assert result.dtype == np.float16
            assert np.array_equal(result, embedding)
            assert np.array_equal(video.numpy(), plain.read(number).video)


def test_plain_webdataset_reads_the_embeddings(tmp_path, frozen):
    index = worded(tmp_path, SAID, frozen)
    tars = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [clip.key for clip in index.clips]
    for sample, metadata in zip(samples, TOLD, strict=True):
        result = np.load(io.BytesIO(sample["text.npy"]))
        assert np.array_equal(result, frozen(metadata))
        assert np.load(io.BytesIO(sample["npy"])).shape == (4, 16, 16, 1)
    result = index.dataset["text_encoder"]
    assert (result["model_type"], result["width"], result["length"]) == ("t5", 16, 128)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_interrupted_cut_is_carried_on_to_the_same_bytes(tmp_path, t5, frozen):
    worded(tmp_path / "whole", SAID, frozen)

    class Stopped(FrozenText):
        def __call__(self, caption: str) -> Embedding:
            if not caption:
                raise KeyboardInterrupt
            return super().__call__(caption)

    with pytest.raises(KeyboardInterrupt):
        worded(tmp_path / "other", SAID, Stopped(t5, 128))
    assert (tmp_path / "other/train-000000.tar").exists()
    assert not (tmp_path / "other/dataset.json").exists()
    with pytest.raises(UserError, match=r"holds another cut: text_encoder was .* is None"):
        worded(tmp_path / "other", SAID)
    worded(tmp_path / "other", SAID, FrozenText(t5, 128))
    assert content(tmp_path / "other") == content(tmp_path / "whole")


def test_another_encoder_or_length_is_another_cut(tmp_path, t5, clip, frozen):
    worded(tmp_path, SAID, frozen)
    for other in (FrozenText(clip, 128), FrozenText(t5, 64)):
        with pytest.raises(UserError, match=r"holds another cut: text_encoder was .*'t5'"):
            worded(tmp_path, SAID, other)
    with pytest.raises(UserError, match=r"holds another cut: text_encoder was .* is None"):
        worded(tmp_path, SAID)


def flip(folder: Path, number: int) -> str:
    """Change the last byte of a clip's embedding; the clip's key."""
    entry = open_shards(folder, "train").clips[number]
    member = entry.members[TEXT]
    tar = bytearray((folder / entry.shard).read_bytes())
    tar[member.offset + member.size - 1] ^= 1
    (folder / entry.shard).write_bytes(tar)
    return entry.key


def test_damaged_embedding_is_a_damaged_clip(tmp_path, frozen):
    worded(tmp_path, SAID, frozen)
    key, index = flip(tmp_path, 3), embedded(tmp_path)
    batches = [batch for (batch,) in islice(steps(index, config(), 0, 1, 0), 2)]
    assert key not in [k for batch in batches for k in batch.keys]
    result = {(damage.key, damage.reason) for batch in batches for damage in batch.damage}
    assert result == {(key, "its text.npy has another xxh3 than the index says")}
    embedded(tmp_path, read=False).read(3)


def test_missing_or_misshapen_embedding_is_damage(tmp_path, frozen):
    index = worded(tmp_path, SAID, frozen)
    first, *others = index.clips
    without = {name: member for name, member in first.members.items() if name != TEXT}
    index.clips = ClipTable.of("here", [replace(first, members=without), *others])
    with pytest.raises(DamagedClipError, match=r"the index names no text.npy of it"):
        index.read(0)
    index.dataset["text_encoder"]["width"] = 8
    with pytest.raises(DamagedClipError, match=r"holds float16 \(2, 16\), not float16 .tokens, 8"):
        index.read(1)


def test_check_names_a_flipped_byte_and_a_missing_embedding(tmp_path, frozen, capsys):
    spec = importlib.util.spec_from_file_location("check_shards", ROOT / "tools/check_shards.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    worded(tmp_path, SAID, frozen)
    assert tool.main([str(tmp_path), "--workers", "1"]) == 0
    key = flip(tmp_path, 5)
    assert tool.main([str(tmp_path), "--workers", "1", "--no_decode"]) == 1
    assert (
        f"member {key}.text.npy has another sha256 than the index says" in capsys.readouterr().out
    )
    metadata = json.loads((tmp_path / "dataset.json").read_text())
    metadata["text_encoder"]["width"] = 8
    (tmp_path / "dataset.json").write_text(json.dumps(metadata))
    assert tool.main([str(tmp_path), "--workers", "1"]) == 1
    assert "does not read: its text.npy holds float16 (2, 16)" in capsys.readouterr().out
    del metadata["text_encoder"]
    (tmp_path / "dataset.json").write_text(json.dumps(metadata))
    assert tool.main([str(tmp_path), "--workers", "1"]) == 1
    assert "have a text.npy, but dataset.json names no text_encoder" in capsys.readouterr().out


def test_embeddings_by_url_refetch_a_wrong_cached_block(web, tmp_path, frozen):
    worded(web.folder, SAID, frozen)
    access = Access(cache=tmp_path / "cache", cache_bytes=2**30)
    entry = open_shards(web.folder, "train").clips[0]
    want = [frozen(output) for output in TOLD]
    for spoil in (False, True):
        if spoil:
            for block in (tmp_path / "cache/blocks").glob("*/*"):
                kept = bytearray(block.read_bytes())
                kept[entry.members[TEXT].offset + entry.members[TEXT].size - 1] ^= 1
                block.write_bytes(kept)
        index = embedded(web.url, access=access)
        video = np.empty(entry.shape, np.uint8)
        result = [index.read_into(i, 0, video).embedding for i in range(len(index))]
        assert all(map(np.array_equal, result, want))
    key, index = flip(web.folder, 0), embedded(web.url)
    with pytest.raises(DamagedClipError, match=f"clip {key} .* its text.npy has another xxh3"):
        index.read(0)
