"""A damaged clip is replaced by the next of its stream, the same for every reader."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdevid.config import Config, parse
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.cut.splits import assign
from sdevid.data.drawn import disc_artist, drawn_sources
from sdevid.data.order import Order
from sdevid.data.shards import DamagedClipError, ShardIndex, open_shards
from sdevid.data.spec import CutSpec
from sdevid.data.stream import fixed, steps
from sdevid.errors import UserError
from sdevid.types import Batch

CLIPS, LENGTH, PER_SHARD = 18, 6, 4


@pytest.fixture(scope="module", params=["npy", "mp4"])
def whole(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("whole")
    shares = {"train": 1.0}
    drawn = drawn_sources("ou", {"train": disc_artist("ou", "none")}, 0, CLIPS, shares)
    spec = CutSpec(16, 8.0, LENGTH, LENGTH, "crop", request.param)
    plan = Plan("ou", assign(drawn, shares, 0), spec, PER_SHARD, {})
    cut(plan, folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return folder


@pytest.fixture
def shards(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "shards")


def config(**changes: object) -> Config:
    settings = {"frame_size": 16, "channels": 1, "sequence_length": LENGTH, "batch_size": 12}
    return parse(settings | {"encoder": {"map_size": 4}, "shuffle_window": 2} | changes)


def flip(folder: Path, number: int, extension: str | None = None) -> str:
    """Change one byte in the middle of a member of a clip; the clip's key."""
    entry = open_shards(folder, "train").clips[number]
    member = entry.members[extension or entry.extension]
    content = bytearray((folder / entry.shard).read_bytes())
    content[member.offset + member.size // 2] ^= 1
    (folder / entry.shard).write_bytes(content)
    return entry.key


def tear(folder: Path, shard: str) -> list[str]:
    """Cut a tar off within its third clip; the keys that are lost."""
    entries = [clip for clip in open_shards(folder, "train").clips if clip.shard == shard]
    content = (folder / shard).read_bytes()
    (folder / shard).write_bytes(content[: entries[2].members["json"].offset])
    return [clip.key for clip in entries[2:]]


def serials(
    index: ShardIndex, settings: Config, world: int, start: int, count: int
) -> list[tuple[int, str, bytes]]:
    """Serial, key and pixels of what all ranks read, in the order of serials."""
    batches: list[Batch] = []
    for rank in range(world):
        for step in islice(steps(index, settings, rank, world, start), count):
            batches += step
    return sorted(
        (int(serial), key, video.numpy().tobytes())
        for batch in batches
        for serial, key, video in zip(batch.serial, batch.keys, batch.video, strict=True)
    )


def expected(index: ShardIndex, settings: Config, damaged: set[str], serial: int) -> str:
    """The rule, once more: the first whole clip from this place of the sequence on."""
    order = Order(index.shard_sizes, settings.seed, settings.shuffle_window)
    keys = (index.clips[order.clip(place)].key for place in range(serial, serial + 10_000))
    return next(key for key in keys if key not in damaged)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 3), (2, 2), (3, 0), (4, 1)])
def test_replacement_does_not_depend_on_who_reads(shards, world, workers):
    torn = tear(shards, "train-000001.tar")
    (shards / "train-000003.tar").unlink()
    damaged = {flip(shards, 1), flip(shards, 2, "json"), *torn}
    damaged |= {c.key for c in open_shards(shards, "train").clips if c.shard.endswith("3.tar")}
    settings = config(data_workers=workers)
    read = serials(open_shards(shards, "train"), settings, world, 0, 3)
    assert [serial for serial, _, _ in read] == list(range(36))
    index = open_shards(shards, "train")
    assert [key for _, key, _ in read] == [expected(index, settings, damaged, s) for s in range(36)]
    resumed = serials(open_shards(shards, "train"), config(), 5 - world or 1, 12, 2)
    assert resumed == read[12:]


@settings(max_examples=25)
@given(st.sets(st.integers(0, CLIPS - 1), max_size=CLIPS - 1), st.integers(0, 2**30))
def test_any_damage_at_any_seed_follows_the_rule(sound, broken, seed):
    index = ShardIndex(sound.folder, sound.split, sound.dataset, sound.clips)
    index.damage.update(dict.fromkeys(broken, "damaged for the test"))
    damaged = {index.clips[number].key for number in broken}
    run = config(seed=seed)
    read = serials(index, run, 2, 0, 2)
    assert [key for _, key, _ in read] == [expected(index, run, damaged, s) for s in range(24)]


@pytest.fixture(scope="module")
def sound(whole: Path) -> ShardIndex:
    return open_shards(whole, "train")


def test_damage_is_told_with_the_batch_that_met_it(shards):
    key = flip(shards, 5)
    index = open_shards(shards, "train")
    met = [d for step in islice(steps(index, config(), 0, 1, 0), 3) for b in step for d in b.damage]
    order = Order(index.shard_sizes, 0, 2)
    indices = [serial for serial in range(36) if order.clip(serial) == 5]
    assert [damage.serial for damage in met if damage.key == key] == indices
    assert {damage.reason for damage in met} == {
        f"its {index.clips[5].extension} has another xxh3 than the index says"
    }


def test_clip_that_was_right_is_still_read_in_later_epochs(shards):
    index = open_shards(shards, "train")
    one, two = (serials(index, config(batch_size=CLIPS), 1, k * CLIPS, 1) for k in (0, 1))
    assert {(key, video) for _, key, video in one} == {(key, video) for _, key, video in two}


def test_evaluation_names_the_damaged_clip(shards):
    key = flip(shards, 3)
    index = open_shards(shards, "train")
    with pytest.raises(DamagedClipError, match=f"clip {key} of .* is damaged: its .* xxh3"):
        fixed(index, config(), range(2, 5))
    assert np.array_equal(fixed(index, config(), range(4, 5)).video[0].numpy(), index.read(4).video)


def test_stream_of_damage_alone_ends(shards):
    for path in shards.glob("*.tar"):
        path.unlink()
    with pytest.raises(UserError, match=r"clips in a row are damaged; the last: .* is missing"):
        next(steps(open_shards(shards, "train"), config(), 0, 1, 0))
