"""Saving and resuming: nothing lost, and the same run whether it was cut or not."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sdevid import checkpoint
from sdevid.errors import UserError

CLIPS = 32  # 8 steps of 4


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    folder = checkpoint.folder_of(run_dir, step)
    assert not checkpoint.faults(folder, checkpoint.read_manifest(folder))
    return {
        f"{which} {name}": tensor
        for which in ("ema", "raw")
        for name, tensor in checkpoint.read_weights(folder, which).items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def terms(run_dir: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what the clock wrote."""
    timed = {"time", "data_wait", "clips_per_s", "steps_per_s"}
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_run_stopped_and_carried_on_is_the_uninterrupted_one_to_the_bit(
    stage, make_config, train_here, world
):
    whole = make_config("whole", zero_stage=stage, max_clips=CLIPS)
    cut = make_config("cut", zero_stage=stage, max_clips=CLIPS, save_every=12)
    assert train_here(whole) == "done"
    world.ask_to_stop("preempted")
    assert train_here(cut) == "preempted"
    assert checkpoint.steps(cut.run_dir) == [1]
    world._stop = 0
    assert train_here(cut) == "done"
    assert checkpoint.steps(cut.run_dir) == [8, 6, 3]  # the newest three
    assert same(weights(whole.run_dir, 8), weights(cut.run_dir, 8))
    assert terms(whole.run_dir) == terms(cut.run_dir)
    assert [line["clips"] for line in terms(cut.run_dir)] == list(range(4, CLIPS + 1, 4))


def test_a_finished_run_is_left_as_it_is(make_config, train_here, capsys):
    config = make_config(max_clips=8)
    train_here(config)
    before = {p: p.stat().st_mtime_ns for p in config.run_dir.rglob("step_*/*")}
    assert train_here(config) == "done"
    assert {p: p.stat().st_mtime_ns for p in config.run_dir.rglob("step_*/*")} == before
    assert "clip 8 of 8" in capsys.readouterr().out


def test_lines_past_the_checkpoint_are_forgotten(make_config, train_here):
    config = make_config(max_clips=8, save_every=4)
    train_here(config)
    checkpoint.remove(checkpoint.folder_of(config.run_dir, 2))
    with (config.run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"clips": 12, "lo')  # torn by a kill
    train_here(config)
    assert [line["clips"] for line in terms(config.run_dir)] == [4, 8]


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, Path.unlink])
@pytest.mark.parametrize("name", ["ema-00000.safetensors", "mp_rank_00_model_states.pt"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    damage, name, make_config, train_here, capsys
):
    config = make_config(max_clips=8, save_every=4)
    train_here(config)
    after = weights(config.run_dir, 2)
    damage(checkpoint.folder_of(config.run_dir, 2) / name)
    capsys.readouterr()
    train_here(config)
    said = capsys.readouterr().out
    assert f"step_2 is damaged: {name}" in said
    assert "carries on from step 1" in said
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


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_save_that_fails_says_so_and_loses_nothing(stage, make_config, train_here):
    first = make_config(zero_stage=stage, max_clips=4)
    train_here(first)
    kept = weights(first.run_dir, 1)
    more = make_config(zero_stage=stage, max_clips=8)
    with largest_file(20_000), pytest.raises(UserError) as raised:
        train_here(more)
    said = str(raised.value)
    assert "checkpoint of step 2 could not be written" in said
    assert "the checkpoint of step 1 is as it was" in said
    assert [p.name for p in (first.run_dir / "checkpoints").iterdir()] == ["step_1"]
    assert (first.run_dir / "latest").read_text() == "checkpoints/step_1\n"
    assert same(kept, weights(first.run_dir, 1))
    assert train_here(more) == "done"  # with room again


def test_another_architecture_is_refused_by_its_first_tensor(make_config, train_here):
    train_here(make_config(max_clips=4))
    with pytest.raises(UserError, match=r"another architecture: model\.\S+ has shape") as raised:
        train_here(make_config(max_clips=8, sde={"hidden": 16}))
    assert "sde.hidden (8 there, 16 now)" in str(raised.value)


def test_a_structural_setting_without_a_shape_is_refused_too(make_config, train_here):
    train_here(make_config(max_clips=4))
    with pytest.raises(UserError, match=r"encoder.heads \(2 there, 4 now\)"):
        train_here(make_config(max_clips=8, encoder={"heads": 4}))


def test_other_settings_may_change_and_are_said(make_config, train_here, capsys):
    train_here(make_config(max_clips=4))
    capsys.readouterr()
    assert train_here(make_config(max_clips=8, learning_rate=1e-4)) == "done"
    said = capsys.readouterr().out
    assert "settings changed since step_1" in said
    assert "learning_rate (0.0003 there, 0.0001 now)" in said
    assert "max_clips (4 there, 8 now)" in said


@pytest.mark.parametrize(
    ("stage", "offload"),
    [(2, {"optimizer": "cpu"}), (3, {"optimizer": "cpu", "parameters": "cpu"})],
)
def test_what_is_offloaded_is_saved_and_carried_on_to_the_bit(
    stage, offload, make_config, train_here, world
):
    settings = {"zero_stage": stage, "offload": offload, "max_clips": 16}
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    train_here(whole)
    world.ask_to_stop("preempted")
    assert train_here(cut) == "preempted"
    world._stop = 0
    assert train_here(cut) == "done"
    assert same(weights(whole.run_dir, 4), weights(cut.run_dir, 4))
    assert terms(whole.run_dir) == terms(cut.run_dir)


def test_going_back_to_the_gpu_is_a_setting_that_changed(make_config, train_here):
    train_here(make_config(max_clips=8, offload={"optimizer": "cpu"}))
    assert train_here(make_config(max_clips=12)) == "done"
