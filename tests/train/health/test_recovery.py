"""Lost steps in real engines: skipped before a weight changes, then returned from, then the end."""

from __future__ import annotations

import itertools
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_weights import same, weights

from sdevid import checkpoint, objectives
from sdevid.config import dump
from sdevid.data import stream
from sdevid.errors import NonFiniteError
from sdevid.objectives.latent_sde import LatentSDEObjective
from sdevid.train.engine import Engine

FAULTY = Path(__file__).parents[2] / "drills/faulty.py"
RATE = 1e-2
SIZE = 4  # clips a step


@pytest.fixture
def lose(monkeypatch):
    """Lose the loss or gradient of steps, counted from 1, by the last clip of each."""
    faulty = runpy.run_path(str(FAULTY))
    monkeypatch.setattr(LatentSDEObjective, "forward", LatentSDEObjective.forward)  # put back after

    def at(*steps: int, **settings: Any) -> None:
        faulty["lose"](serials=[SIZE * step - 1 for step in steps], **settings)

    return at


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.detach().clone()]
    parts = value.values() if isinstance(value, dict) else value
    return [t for p in parts for t in tensors(p)] if isinstance(value, dict | list | tuple) else []


def state(engine: Engine) -> list[torch.Tensor]:
    """This rank's weights and what its optimizer keeps."""
    return tensors([[p.tensor for p in engine.parameter_shards()], engine.moments()])


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_skipped_step_leaves_the_next_one_unchanged(stage, what, make_config, index, world, lose):
    config = make_config(zero_stage=stage, micro_batch_size=2)
    steps = list(itertools.islice(stream.steps(index, config, 0, 1, 0), 3))
    lose(2, what=what)
    engines = []
    for _ in range(2):
        torch.manual_seed(0)
        engines.append(Engine(objectives.build(config), config, world))
    lost, spared = engines
    lost.step(steps[0], 0.5, RATE)
    before = state(lost)
    terms = lost.step(steps[1], 0.5, RATE)
    assert math.isfinite(terms["loss"]) == (what != "loss")
    assert math.isfinite(terms["grad_norm"]) == (what != "gradient")
    assert all(torch.equal(a, b) for a, b in zip(before, state(lost), strict=True))
    spared.step(steps[0], 0.5, RATE)
    after = [engine.step(steps[2], 0.5, RATE) for engine in engines]
    assert torch.equal(after[0]["loss"], after[1]["loss"])
    assert all(torch.equal(a, b) for a, b in zip(state(lost), state(spared), strict=True))


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bad_steps_in_a_row_return_to_a_checkpoint_past_them(
    stage, make_config, train_here, lose, capsys
):
    lose(6, 7)
    settings = {"zero_stage": stage, "save_every": 3 * SIZE, "faults": {"skips": 2}}
    config = make_config(max_clips=10 * SIZE, **settings)
    assert train_here(config) == "done"
    message = capsys.readouterr().out
    assert "step 6: the loss is nan; its update is skipped" in message
    assert (
        "as 2 in a row: back to the weights of step 3, and on with the data from clip 28" in message
    )
    assert [line["skipped"] for line in lines(config.run_dir)] == [0] * 5 + [1, 1] + [0] * 3
    assert checkpoint.steps(config.run_dir) == [10, 9, 8]  # what was due at 6 waited until 8
    assert not same(weights(config.run_dir, 8), weights(config.run_dir, 10))


def test_after_a_return_weights_are_those_of_the_checkpoint(make_config, train_here, lose):
    lose(5, 6)
    settings = {"save_every": 3 * SIZE, "faults": {"skips": 2}}
    config = make_config(max_clips=6 * SIZE, **settings)
    train_here(config)
    assert checkpoint.steps(config.run_dir) == [6, 3]
    assert same(weights(config.run_dir, 3), weights(config.run_dir, 6))
    manifest = checkpoint.read_manifest(checkpoint.folder_of(config.run_dir, 6))
    assert (manifest.clips, manifest.faults["rollbacks"]) == (24, 1)


def test_cut_at_every_step_of_a_bad_stretch_it_is_the_same_run(
    make_config, train_here, lose, world
):
    lose(4, 5, 6)
    settings = {"save_every": 2 * SIZE, "max_clips": 9 * SIZE, "checkpoint": {"keep": 9}}
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    train_here(whole)
    world.ask_to_stop("preempted")
    for _ in range(9):
        train_here(cut)
    assert same(weights(whole.run_dir, 9), weights(cut.run_dir, 9))
    timed = {"time", "data_wait", "clips_per_s", "steps_per_s"}
    for a, b in zip(lines(whole.run_dir), lines(cut.run_dir), strict=True):
        assert {n: a[n] for n in a if n not in timed} == {n: b[n] for n in b if n not in timed}


def test_faults_without_end_stop_the_run(make_config, train_here, lose):
    lose(*range(4, 100))
    faults = {"skips": 2, "rollbacks": 2}
    config = make_config(max_clips=50 * SIZE, save_every=SIZE, faults=faults)
    with pytest.raises(NonFiniteError, match=r"step 9: the loss is nan, after 2 returns"):
        train_here(config)
    assert checkpoint.steps(config.run_dir) == [3, 2, 1]


def test_spike_is_skipped_too(make_config, train_here, lose, capsys):
    lose(8, by=1e4)
    config = make_config(max_clips=9 * SIZE, faults={"spike": 20, "window": 6})
    assert train_here(config) == "done"
    assert "step 8: the loss is 1" in capsys.readouterr().out
    assert [line["skipped"] for line in lines(config.run_dir)] == [0] * 7 + [1, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "what"), [(0, "loss"), (1, "gradient"), (2, "loss"), (3, "gradient")]
)
def test_two_ranks_agree_where_one_alone_has_lost_its_step(
    stage, what, make_config, train_here, lose
):
    settings = {"zero_stage": stage, "max_clips": 7 * SIZE, "save_every": 2 * SIZE}
    settings["faults"] = {"skips": 2}
    one, two = make_config("one", **settings), make_config("two", **settings)
    path = two.run_dir.with_suffix(".yaml")
    path.write_text(dump(two))
    faults = {"lose": {"serials": [SIZE * 5 - 1, SIZE * 6 - 1], "what": what}}  # clips of rank 1
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    program = [str(FAULTY), json.dumps(faults), "train", "--config", str(path)]
    ran = subprocess.run(
        [*launcher, "--standalone", *program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "as 2 in a row: back to the weights of step 4" in ran.stdout
    lose(5, 6, what=what)
    train_here(one)
    expected = weights(one.run_dir, 7)
    for name, got in weights(two.run_dir, 7).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-2, atol=2e-4)
