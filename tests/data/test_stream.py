"""The order of clips: a pure function, whoever reads it and from wherever it is carried on."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from sdevid.config import Config, parse
from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.cut.splits import assign
from sdevid.data.drawn import disc_artist, drawn_sources
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.data.spec import CutSpec
from sdevid.data.stream import check_clips, fixed, steps, total_clips
from sdevid.errors import UserError
from sdevid.types import Batch

CLIPS, LENGTH = 18, 10


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    folder: Path = tmp_path_factory.mktemp("shards")
    shares = {"train": 1.0}
    drawn = drawn_sources("ou", {"train": disc_artist("ou", "none")}, 0, CLIPS, shares)
    spec = CutSpec(16, 8.0, LENGTH, LENGTH, "crop", "npy")
    plan = Plan("ou", assign(drawn, shares, 0), spec, 7, {})
    cut(plan, folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return open_shards(folder, "train")


def config(**changes: object) -> Config:
    settings = {"frame_size": 16, "channels": 1, "sequence_length": 6, "batch_size": 12}
    settings |= {"encoder": {"map_size": 4}}
    return parse(settings | changes)


def global_batches(
    index: ShardIndex, settings: Config, world: int, start: int, count: int
) -> list[list[Batch]]:
    ranks = [islice(steps(index, settings, rank, world, start), count) for rank in range(world)]
    return [[batch for part in step for batch in part] for step in zip(*ranks, strict=True)]


def content(step: list[Batch]) -> tuple[list[int], list[str], torch.Tensor]:
    serial = [int(s) for batch in step for s in batch.serial]
    keys = [key for batch in step for key in batch.keys]
    return serial, keys, torch.cat([batch.video for batch in step])


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("micro", [1, None])
def test_any_number_of_ranks_sees_the_same_global_batches(index, world, micro):
    want = global_batches(index, config(), 1, 0, 3)
    got = global_batches(index, config(micro_batch_size=micro), world, 0, 3)
    for one, other in zip(want, got, strict=True):
        assert content(one)[:2] == content(other)[:2]
        assert torch.equal(content(one)[2], content(other)[2])


def test_epoch_holds_every_clip_once_across_batches(index):
    serials = [content(step) for step in global_batches(index, config(), 1, 0, 3)]
    keys = [key for _, names, _ in serials for key in names]
    assert [s for serial, _, _ in serials for s in serial] == list(range(36))
    assert max(Counter(keys[:CLIPS]).values()) == max(Counter(keys[CLIPS:]).values()) == 1
    assert keys[:CLIPS] != keys[CLIPS:]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2), (3, 1)])
def test_resume_carries_on_in_the_middle_of_an_epoch(index, world, workers):
    want = global_batches(index, config(), 1, 0, 4)[2:]
    got = global_batches(index, config(data_workers=workers), world, 24, 2)
    for one, other in zip(want, got, strict=True):
        assert content(one)[:2] == content(other)[:2]
        assert torch.equal(content(one)[2], content(other)[2])


def test_longer_clip_is_cropped_by_its_serial(index):
    step = next(steps(index, config(), 0, 1, 0))[0]
    assert step.video.shape == (12, 6, 16, 16, 1)
    assert step.ticks.tolist() == [[k * 76_800 for k in range(6)]] * 12
    clips = {entry.key: index.read(i).video for i, entry in enumerate(index.clips)}
    starts = set()
    for video, key in zip(step.video.numpy(), step.keys, strict=True):
        whole = clips[key]
        indices = [k for k in range(5) if np.array_equal(whole[k : k + 6], video)]
        assert len(indices) == 1
        starts |= set(indices)
    assert len(starts) > 2


def test_strides_and_irregular_times_take_their_frames(index):
    settings = {"sequence_length": 4, "frame_strides": [1, 3], "irregular_fraction": 0.5}
    mixed = config(**settings, observation={"max_context": 2})
    kinds = Counter()
    for step in islice(steps(index, mixed, 0, 1, 0), 12):
        for batch in step:
            for video, ticks, key in zip(batch.video, batch.ticks, batch.keys, strict=True):
                whole = next(c for c in map(index.read, range(len(index))) if c.key == key)
                indices = (ticks // 76_800).tolist()  # frames
                assert ticks[0] == 0
                assert (ticks.diff() > 0).all()
                assert any(
                    np.array_equal(whole.video[[first + k for k in indices]], video)
                    for first in range(LENGTH - indices[-1])
                )
                kinds[tuple(indices)] += 1
    assert {(0, 1, 2, 3), (0, 3, 6, 9)} <= set(kinds)
    assert any(indices[-1] == 9 and indices[1] != 3 for indices in kinds)
    regular = fixed(index, mixed, range(2))
    assert regular.ticks.diff(dim=1).unique().tolist() == [76_800]


def test_fixed_batch_is_the_clips_asked_for(index):
    batch = fixed(index, config(sequence_length=LENGTH), range(3, 6))
    assert batch.keys == tuple(entry.key for entry in index.clips[3:6])
    assert np.array_equal(batch.video[1].numpy(), index.read(4).video)


def test_run_ends_with_epochs_or_clips(index):
    assert total_clips(index, config(num_epochs=3)) == 54
    assert total_clips(index, config(num_epochs=3, max_clips=40)) == 40


@pytest.mark.parametrize(
    ("world", "micro", "hint"), [(5, None, "10 or 15"), (2, 5, "10 or 20"), (2, 12, "24")]
)
def test_batch_that_ranks_cannot_share_is_told(index, world, micro, hint):
    with pytest.raises(UserError, match=f"batch_size is 12.*batch_size={hint}"):
        next(steps(index, config(micro_batch_size=micro), 0, world, 0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_size": 32}, "frame_size is 32, but .* 16x16"),
        ({"channels": 3}, "channels is 3, but .* set channels=1"),
        ({"sequence_length": 11}, "sequence_length is 11, but .* 10 frames"),
        ({"frame_strides": [1, 2]}, "clip needs 11 frames, but .* 10"),
        ({"fps": 8.2}, "fps is 8.2, but .* at 8 frames"),
    ],
)
def test_clips_that_do_not_fit_the_config_are_told(index, changes, message):
    with pytest.raises(UserError, match=message):
        check_clips(index, config(**changes))


def test_clips_within_a_percent_of_fps_are_read(index):
    near = config(fps=8.05)
    check_clips(index, near)
    exact, batch = (fixed(index, one, range(2)) for one in (config(), near))
    assert batch.keys == exact.keys
    assert np.array_equal(batch.video, exact.video)


def test_memory_is_used_again_only_when_nobody_holds_it(index):
    """Also not while a view of a view is left, as autograd may keep one."""
    batches = (step[0] for step in steps(index, config(), 0, 1, 0))
    first = next(batches)
    held, copy = first.video[3:].permute(0, 1, 4, 2, 3)[1:], first.video.clone()
    address = first.video.data_ptr()
    del first
    addresses = {next(batches).video.data_ptr() for _ in range(6)}
    assert address not in addresses
    assert torch.equal(held, copy[4:].permute(0, 1, 4, 2, 3))
    assert len(addresses) < 6
    del held
    assert address in {next(batches).video.data_ptr() for _ in range(4)}
