"""Which checkpoints stay."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid import checkpoint
from sdevid.checkpoint import FORMAT, Manifest
from sdevid.config import CheckpointConfig, parse
from sdevid.errors import UserError
from sdevid.train.checkpointing import retention


def write(run_dir: Path, step: int, score: float | None = None) -> Path:
    folder = checkpoint.folder_of(run_dir, step)
    folder.mkdir(parents=True)
    manifest = checkpoint.signed(
        Manifest(FORMAT, 10 * step, step, 1, 2, {}, {"x": (1, "")}, score=score)
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    return folder


def run(run_dir: Path, settings: CheckpointConfig, steps: int, scores: dict[int, float]) -> None:
    for step in range(1, steps + 1):
        write(run_dir, step, scores.get(step))
        retention.prune(run_dir, settings)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": 2}, [9, 8]),
        ({"keep": 2, "keep_every": 30}, [9, 8, 6, 3]),
        ({"keep": 2, "keep_every": 25}, [9, 8, 5, 3]),  # the first at or past 25, 50, 75
        ({"keep": 2, "best": "loss"}, [9, 8, 4]),
        ({"keep": 2, "best": "elbo", "best_is": "highest"}, [9, 8, 2]),
        ({"keep": 2, "pin": [5, 6]}, [9, 8, 6, 5]),
        ({"keep": 3, "keep_every": 40, "best": "loss", "pin": [1]}, [9, 8, 7, 4, 1]),
    ],
)
def test_each_rule_keeps_its_own(settings, kept, tmp_path):
    run(tmp_path, CheckpointConfig(**settings), 9, {2: 0.9, 4: 0.1, 6: 0.5})
    assert checkpoint.steps(tmp_path) == kept
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_score_that_is_none_is_not_the_best(tmp_path):
    run(tmp_path, CheckpointConfig(keep=2, best="loss"), 9, {1: math.nan, 4: 0.1, 6: 0.5})
    assert checkpoint.steps(tmp_path) == [9, 8, 4]


def test_file_pins_the_checkpoint_it_lies_in(tmp_path):
    (write(tmp_path, 1) / retention.PIN).touch()
    write(tmp_path, 2)
    for step in (3, 4, 5):
        write(tmp_path, step)
    retention.prune(tmp_path, CheckpointConfig(keep=2))
    assert checkpoint.steps(tmp_path) == [5, 4, 1]


def test_damaged_one_goes_with_age_and_hides_no_other(tmp_path):
    settings = CheckpointConfig(keep=2, best="loss", keep_every=10)
    for step, score in ((1, 0.5), (2, 0.1), (3, 0.7), (4, 0.6), (5, 0.6)):
        write(tmp_path, step, score)
    (checkpoint.folder_of(tmp_path, 2) / "manifest.json").write_text("{")
    retention.prune(tmp_path, settings)
    assert checkpoint.steps(tmp_path) == [5, 4, 3, 1]


@given(keep=st.integers(2, 4), every=st.integers(1, 90), steps=st.integers(1, 12))
def test_checkpoints_kept_for_ever_do_not_depend_on_timing(keep, every, steps, tmp_path_factory):
    settings = CheckpointConfig(keep=keep, keep_every=every)
    folder = tmp_path_factory.mktemp("run")
    run(folder, settings, steps, {})
    at_once = {1 + (k * every - 1) // 10 for k in range(1, 1 + 10 * steps // every)}
    newest = set(range(max(1, steps - keep + 1), steps + 1))
    assert set(checkpoint.steps(folder)) == {s for s in at_once if s <= steps} | newest


def test_fewer_than_two_are_refused():
    with pytest.raises(UserError, match=r"checkpoint\.keep is 1, but .* 2"):
        parse({"checkpoint": {"keep": 1}})
