"""Another number of ranks, another ZeRO stage: the run goes on as if nothing had changed.

Here a few changes that between them leave and enter every stage and every number of ranks. All of
them: SDEVID_EVERY_CHANGE=1, about an hour on two cores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import permutations, product
from pathlib import Path

import pytest
import torch

from sdevid import checkpoint
from sdevid.atomic_file import replace_text
from sdevid.config import Config, dump
from sdevid.errors import UserError
from sdevid.train.checkpointing import elastic

CLIPS, HALF, BATCH = 72, 36, 12
RTOL = 5e-6  # six digits
Shape = tuple[int, int]  # ranks, ZeRO stage


def train_on(ranks: int, config: Config) -> str:
    """Train as a user does, on so many ranks; what was printed."""
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "sdevid", "train", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def halfway(whole: Config, run_dir: Path) -> None:
    """A run folder as it was when a finished run had come half its way."""
    shutil.copytree(whole.run_dir, run_dir)
    checkpoint.remove(checkpoint.folder_of(run_dir, CLIPS // BATCH))
    replace_text(run_dir / "latest", f"checkpoints/step_{HALF // BATCH}\n")


def losses(config: Config) -> list[float]:
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def steps_of_adam(config: Config) -> set[float]:
    folder = checkpoint.folder_of(config.run_dir, CLIPS // BATCH)
    if config.zero_stage == 0:
        state = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)["optimizer"]
    else:
        file = next(folder.glob("*_optim_states.pt"))
        inner = torch.load(file, weights_only=False)["optimizer_state_dict"]
        state = inner["optimizer_state_dict" if config.zero_stage == 3 else "base_optimizer_state"]
    return {float(s["step"]) for s in state["state"].values()}


def assert_goes_on(whole: Config, more: Config, train: Callable[[Config], object]) -> None:
    """From half of `whole`, `more` comes to the same end."""
    halfway(whole, more.run_dir)
    train(more)
    assert_same(more, whole)


def assert_same(more: Config, whole: Config) -> None:
    """Two runs have the same losses and weights, but for the order of float32 sums."""
    torch.testing.assert_close(losses(more), losses(whole), rtol=RTOL, atol=0)
    ours, theirs = (checkpoint.folder_of(c.run_dir, CLIPS // BATCH) for c in (more, whole))
    for which in ("raw", "ema"):
        got, expected = (checkpoint.read_weights(f, which) for f in (ours, theirs))
        assert got.keys() == expected.keys()
        for name in expected:  # Adam divides: where a gradient is next to 0, its sign may differ
            torch.testing.assert_close(got[name], expected[name], rtol=1e-2, atol=2e-4)
    assert steps_of_adam(more) == {CLIPS / BATCH}
    assert not list((more.run_dir / "checkpoints").glob(".*"))


@pytest.fixture
def shaped(make_config):
    def make(run: str, stage: int, **settings) -> Config:
        lengths = {"batch_size": BATCH, "log_every": BATCH, "max_clips": CLIPS}
        return make_config(run, zero_stage=stage, **lengths, save_every=HALF, **settings)

    return make


@pytest.mark.parametrize(
    ("before", "after"),
    [(2, 3), *(pytest.param(*c, marks=pytest.mark.slow) for c in [(0, 2), (3, 1), (1, 0), (0, 3)])],
)
def test_change_of_stage_goes_on_as_the_uninterrupted_run(
    before, after, shaped, train_here, capsys
):
    whole, more = shaped("whole", before), shaped("more", after)
    train_here(whole)
    assert_goes_on(whole, more, train_here)
    assert f"was written by 1 ranks at ZeRO {before}" in capsys.readouterr().out


@pytest.mark.slow
def test_other_groups_of_the_optimizer_are_a_change_of_shape(shaped, train_here, capsys):
    """The decay parts matrices from vectors; one too small to matter leaves the run as it was."""
    whole, more = shaped("whole", 2), shaped("more", 2, weight_decay=1e-12)
    train_here(whole)
    assert_goes_on(whole, more, train_here)
    assert "converting" in capsys.readouterr().out


WAY: list[Shape] = [(2, 1), (1, 2), (3, 3), (4, 1), (2, 3)]


@pytest.mark.slow
def test_run_moved_at_each_checkpoint_is_the_unmoved_one(make_config):
    """2 ranks, 1, 3, 4 and 2 again, another stage each time."""
    lengths = {"batch_size": BATCH, "log_every": BATCH, "max_clips": CLIPS, "save_every": BATCH}
    settings = lengths | {"checkpoint": {"keep": 9}}
    whole = make_config("whole", zero_stage=2, **settings)
    train_on(1, whole)
    for step, (ranks, stage) in enumerate(WAY):
        other_folder = make_config("moved", zero_stage=stage, **settings)
        output = train_on(ranks, other_folder)
        assert ("converting" in output) == (step > 0)
        assert_same(other_folder, whole)
        for later in range(step + 2, CLIPS // BATCH + 1):  # the next one starts after this step
            checkpoint.remove(checkpoint.folder_of(other_folder.run_dir, later))


if "SDEVID_EVERY_CHANGE" in os.environ:  # no skipped test otherwise: in CI that is a failure
    SHAPES = list(product((1, 2, 3, 4), (0, 1, 2, 3)))

    @pytest.mark.parametrize(("before", "after"), list(permutations(SHAPES, 2)))
    def test_every_change(before, after, shaped):
        whole, more = shaped("whole", before[1]), shaped("more", after[1])
        train_on(before[0], whole)
        assert_goes_on(whole, more, lambda config: train_on(after[0], config))


def test_conversion_without_room_says_so_and_leaves_nothing(shaped, train_here, monkeypatch):
    whole, more = shaped("whole", 2), shaped("more", 1)
    train_here(whole)
    halfway(whole, more.run_dir)
    real = shutil.disk_usage(more.run_dir)
    monkeypatch.setattr(elastic.shutil, "disk_usage", lambda _path: real._replace(free=1_000))
    with pytest.raises(UserError, match=r"could not be converted in .*MiB are needed, 0 are free"):
        train_here(more)
    left = sorted(p.name for p in (more.run_dir / "checkpoints").iterdir())
    assert left == [f"step_{HALF // BATCH}"]


def test_tool_that_fails_is_quoted(shaped, train_here):
    whole, more = shaped("whole", 2), shaped("more", 1)
    train_here(whole)
    halfway(whole, more.run_dir)
    folder = checkpoint.folder_of(more.run_dir, HALF // BATCH)
    file = next(folder.glob("*_optim_states.pt"))
    file.write_bytes(b"not a pickle")
    manifest = checkpoint.read_manifest(folder)
    entry = {file.name: (file.stat().st_size, checkpoint.digest(file))}
    signed = checkpoint.signed(replace(manifest, files=manifest.files | entry))
    (folder / "manifest.json").write_text(json.dumps(asdict(signed)), encoding="utf-8")
    with pytest.raises(UserError, match=r"convert ended with 2: .*more than data"):
        train_here(more)
