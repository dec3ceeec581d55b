"""Checkpoints that are damaged or cannot be written: said, and the whole one before is taken."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from saved_weights import same, weights

from sdevid import checkpoint
from sdevid.errors import UserError


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, Path.unlink])
@pytest.mark.parametrize("name", ["ema-00000.safetensors", "mp_rank_00_model_states.pt"])
def test_damaged_checkpoint_is_named_and_the_one_before_taken(
    damage, name, make_config, train_here, capsys
):
    config = make_config(max_clips=8, save_every=4)
    train_here(config)
    after = weights(config.run_dir, 2)
    damage(checkpoint.folder_of(config.run_dir, 2) / name)
    capsys.readouterr()
    train_here(config)
    message = capsys.readouterr().out
    assert f"step_2 is damaged: {name}" in message
    assert "carries on from step 1" in message
    assert same(after, weights(config.run_dir, 2))  # written again, over the damaged one


def test_only_damaged_checkpoints_end_the_run(make_config, train_here):
    config = make_config(max_clips=4)
    train_here(config)
    (checkpoint.folder_of(config.run_dir, 1) / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no checkpoint of .* is whole.*manifest.json"):
        train_here(config)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing past `size` bytes of any file fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", [0, 3, pytest.param(2, marks=pytest.mark.slow)])
def test_save_that_fails_says_so_and_loses_nothing(stage, make_config, train_here):
    first = make_config(zero_stage=stage, max_clips=4)
    train_here(first)
    kept = weights(first.run_dir, 1)
    more = make_config(zero_stage=stage, max_clips=8)
    with largest_file(20_000), pytest.raises(UserError) as raised:
        train_here(more)
    message = str(raised.value)
    assert "checkpoint of step 2 could not be written" in message
    assert "the checkpoint of step 1 is as it was" in message
    assert [p.name for p in (first.run_dir / "checkpoints").iterdir()] == ["step_1"]
    assert (first.run_dir / "latest").read_text().startswith("checkpoints/step_1\n")
    assert same(kept, weights(first.run_dir, 1))
    assert train_here(more) == "done"  # with room again
