"""Damaged clips in a run: left out, named once, counted, and too many of them stop it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdevid.checkpoint import Progress
from sdevid.config import Config, dump
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.errors import UserError
from sdevid.train.health.quarantine import Quarantine
from sdevid.train.loop import train
from sdevid.types import Batch, Damage

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def torn(shards: Path, tmp_path: Path) -> Path:
    """The shards with a byte flipped in each of the first two clips."""
    return spoil(shutil.copytree(shards, tmp_path / "torn"), range(2))


def spoil(folder: Path, numbers: range) -> Path:
    for entry in (open_shards(folder, "train").clips[number] for number in numbers):
        content = bytearray((folder / entry.shard).read_bytes())
        content[entry.members["npy"].offset + 200] ^= 1
        (folder / entry.shard).write_bytes(content)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(config: Config, world, progress: Progress | None = None) -> ShardIndex:
    config.run_dir.mkdir(parents=True, exist_ok=True)
    index = open_shards(config.data, config.split)
    train(config, index, world, progress or Progress())
    return index


def test_damaged_clips_are_named_once_and_counted(make_config, torn, world):
    config = make_config(data=str(torn), max_clips=72, save_every=24)
    index = run(config, world)
    named = lines(config.run_dir / "quarantine.jsonl")
    assert {entry["key"] for entry in named} == {clip.key for clip in index.clips[:2]}
    assert len(named) == 2
    for entry in named:
        assert entry["shard"] == index.clips[0].shard
        assert "xxh3" in entry["reason"]
        assert 0 <= entry["serial"] < len(index) + 2
    assert lines(config.run_dir / "metrics.jsonl")[-1]["quarantined"] == 2


def test_resume_repeats_replacements_and_names_none_twice(make_config, torn, world):
    config = make_config(data=str(torn), max_clips=48)
    run(config, world)
    longer = make_config(data=str(torn), max_clips=72)
    run(longer, world)
    assert len(lines(config.run_dir / "quarantine.jsonl")) == 2
    assert lines(config.run_dir / "metrics.jsonl")[-1]["quarantined"] == 2


def test_past_the_rate_the_run_stops(make_config, torn, world):
    spoil(torn, range(2, 9))
    config = make_config(data=str(torn), max_clips=72)
    message = r"(8|9) of the \d+ clips read from .* are damaged, more than data_max_damaged"
    with pytest.raises(UserError, match=message):
        run(config, world)
    run(make_config("allowed", data=str(torn), max_clips=72, data_max_damaged=0.9), world)


def test_all_that_a_rank_met_is_noted_in_the_order_of_serials(make_config, world, index):
    config = make_config()
    config.run_dir.mkdir()
    first = next(iter_batches(index, config))
    quarantine = Quarantine(config, world, 1_000)
    damage = tuple(Damage(serial, "a.tar", key, "torn") for serial, key in ((9, "x"), (3, "y")))
    again = (Damage(12, "a.tar", "x", "torn"),)
    batches = [Batch(first.video, first.ticks, first.serial, (), (), d) for d in (damage, again)]
    assert list(quarantine.watching([batches[:1], batches[1:]])) == [batches[:1], batches[1:]]
    assert quarantine.flush() == {"quarantined": 2.0}
    named = lines(config.run_dir / "quarantine.jsonl")
    assert [(entry["serial"], entry["key"]) for entry in named] == [(3, "y"), (9, "x")]
    assert Quarantine(config, world, 1_000).flush() == {"quarantined": 2.0}


def iter_batches(index: ShardIndex, config: Config):
    from sdevid.data.stream import steps

    return (batch for step in steps(index, config, 0, 1, 0) for batch in step)


@pytest.mark.slow
def test_two_ranks_name_the_same_and_stop_together(make_config, torn):
    config = make_config(data=str(torn), max_clips=72)
    done = launch(config)
    assert done.returncode == 0, done.stderr
    assert len(lines(config.run_dir / "quarantine.jsonl")) == 2
    spoil(torn, range(2, 9))
    worse = make_config("worse", data=str(torn), max_clips=72)
    done = launch(worse)
    assert done.returncode != 0
    output = "read from .* are damaged, more than data_max_damaged"
    for name in ("sdevid", "rank 1"):
        assert re.search(f"{name}: \\d+ of the \\d+ clips {output}", done.stderr)
    assert json.loads((worse.run_dir / "exit.json").read_text())["reason"] == "failed"


def launch(config: Config) -> subprocess.CompletedProcess[str]:
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config))
    command = [*TORCHRUN, "-m", "sdevid", "train", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
