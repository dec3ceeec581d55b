"""No split leaks, shares are kept, and mistakes in them are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.data.cut.sources import VideoSource
from sdevid.data.cut.splits import assign, counts, parse_splits
from sdevid.errors import UserError


def sources(groups: int, clips: int = 3, split: str | None = None) -> list[VideoSource]:
    return [
        VideoSource(Path(f"{g}-{c}"), f"{g}-{c}", f"group-{g}", split)
        for g in range(groups)
        for c in range(clips)
    ]


@given(st.integers(2, 200), st.integers(0, 9))
def test_groups_stay_whole_and_shares_are_kept(groups, seed):
    pairs = assign(sources(groups), {"train": 0.8, "val": 0.2}, seed)
    sides = {split: {s.group for where, s in pairs if where == split} for split in ("train", "val")}
    assert not sides["train"] & sides["val"]
    assert len(sides["train"] | sides["val"]) == groups
    assert abs(len(sides["val"]) - max(1, 0.2 * groups)) <= 1
    assert [split for split, _ in pairs] == sorted(split for split, _ in pairs)


def test_order_of_listing_does_not_matter_and_the_seed_does():
    shares = {"train": 0.5, "val": 0.5}
    listed = sources(20)
    assert assign(listed, shares, 0) == assign(listed[::-1], shares, 0)
    assert assign(listed, shares, 0) != assign(listed, shares, 1)


def test_official_splits_are_kept():
    pairs = assign(sources(2, split="test") + sources(1, split="train"), {"train": 1.0}, 0)
    assert [split for split, _ in pairs] == ["train"] * 3 + ["test"] * 6


@given(st.integers(3, 10_000))
def test_counts_make_the_total(total):
    given_out = counts(total, {"train": 0.9, "val": 0.07, "test": 0.03}, "clips")
    assert sum(given_out.values()) == total
    assert min(given_out.values()) >= 1


def test_too_few_videos_for_the_splits_is_told():
    with pytest.raises(UserError, match="1 source videos cannot fill 2 splits"):
        assign(sources(1), {"train": 0.9, "val": 0.1}, 0)


@pytest.mark.parametrize(
    "text", ["train", "train=0.9", "train=1.5,val=-0.5", "a.b=1", "train=x,v=1"]
)
def test_shares_that_make_no_whole_are_told(text):
    with pytest.raises(UserError, match="--splits"):
        parse_splits(text)


def test_shares_are_read():
    assert parse_splits("train=0.8, val=0.1,test=0.1") == {"train": 0.8, "val": 0.1, "test": 0.1}
