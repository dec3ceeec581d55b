"""Saving and resuming: nothing lost, and the same run whether it was cut or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import factories
import pytest
import torch
import yaml
from saved_weights import same, weights

from sdevid import checkpoint
from sdevid.data.index import ClipTable
from sdevid.data.shards import open_shards
from sdevid.errors import UserError
from sdevid.train.checkpointing import data_identity
from sdevid.train.loop import train

CLIPS = 32  # 8 steps of 4


def terms(run_dir: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what the clock wrote."""
    timed = {"time", "data_wait", "clips_per_s", "steps_per_s"}
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.mark.parametrize(
    "stage", [0, 3, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))]
)
def test_resumed_run_is_bit_equal_to_the_uninterrupted(
    stage, make_config, train_here, train_restarted, world
):
    whole = make_config("whole", zero_stage=stage, max_clips=CLIPS)
    cut = make_config("cut", zero_stage=stage, max_clips=CLIPS, save_every=12)
    assert train_here(whole) == "done"
    world.ask_to_stop("preempted")
    assert train_here(cut) == "preempted"
    assert checkpoint.steps(cut.run_dir) == [1]
    assert train_restarted(cut) == "done"
    assert checkpoint.steps(cut.run_dir) == [8, 6, 3]  # the newest three
    assert same(weights(whole.run_dir, 8), weights(cut.run_dir, 8))
    assert terms(whole.run_dir) == terms(cut.run_dir)
    assert [line["clips"] for line in terms(cut.run_dir)] == list(range(4, CLIPS + 1, 4))


def test_finished_run_is_left_as_it_is(make_config, train_here, capsys):
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


def test_another_architecture_is_refused_by_its_first_tensor(make_config, train_here):
    train_here(make_config(max_clips=4))
    with pytest.raises(UserError, match=r"another architecture: model\.\S+ has shape") as raised:
        train_here(make_config(max_clips=8, sde={"hidden": 16}))
    assert "sde.hidden (8 there, 16 now)" in str(raised.value)


def test_structural_setting_without_a_shape_is_refused_too(make_config, train_here):
    train_here(make_config(max_clips=4))
    with pytest.raises(UserError, match=r"encoder.heads \(2 there, 4 now\)"):
        train_here(make_config(max_clips=8, encoder={"heads": 4}))


def test_other_settings_may_change_and_are_said(make_config, train_here, capsys):
    train_here(make_config(max_clips=4))
    capsys.readouterr()
    assert train_here(make_config(max_clips=8, learning_rate=1e-4)) == "done"
    message = capsys.readouterr().out
    assert "settings changed since step_1" in message
    assert "learning_rate (0.0003 there, 0.0001 now)" in message
    assert "max_clips (4 there, 8 now)" in message


@pytest.mark.parametrize(
    ("stage", "offload"),
    [(2, {"optimizer": "cpu"}), (3, {"optimizer": "cpu", "parameters": "cpu"})],
)
def test_offloaded_run_resumes_bit_equal(
    stage, offload, make_config, train_here, train_restarted, world
):
    settings = {"zero_stage": stage, "offload": offload, "max_clips": 16}
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    train_here(whole)
    world.ask_to_stop("preempted")
    assert train_here(cut) == "preempted"
    assert train_restarted(cut) == "done"
    assert same(weights(whole.run_dir, 4), weights(cut.run_dir, 4))
    assert terms(whole.run_dir) == terms(cut.run_dir)


def test_going_back_to_the_gpu_is_a_setting_that_changed(make_config, train_here):
    train_here(make_config(max_clips=8, offload={"optimizer": "cpu"}))
    assert train_here(make_config(max_clips=12)) == "done"


def test_resume_refuses_architecture_changes_without_a_shape(make_config, train_here):
    train_here(make_config(max_clips=4))
    with pytest.raises(UserError, match=r"sde.heads \(4 there, 2 now\)"):
        train_here(make_config(max_clips=8, sde={"heads": 2}))


def test_other_data_are_refused_with_both_values(make_config, train_here, world, tmp_path, shards):
    train_here(make_config(max_clips=8))
    other = open_shards(other_data(shards, tmp_path / "other"), "train")
    with pytest.raises(UserError) as raised:
        train(make_config(max_clips=16), other, world, checkpoint.Progress())
    message = str(raised.value)
    assert message.startswith("the data are not those of step_2 (")
    for index in (other, open_shards(shards, "train")):
        assert f"{len(index)} clips" in message
        assert data_identity.identify(index).index in message
    assert "data_changed=true" in message


def test_other_data_are_carried_on_with_where_told(
    make_config, train_here, world, tmp_path, shards, capsys
):
    train_here(make_config(max_clips=8))
    other = open_shards(other_data(shards, tmp_path / "other"), "train")
    permitted = make_config(max_clips=16, data_changed=True)
    capsys.readouterr()
    assert train(permitted, other, world, checkpoint.Progress()) == "done"
    assert "is now clip 8 of epoch 0 of these data" in capsys.readouterr().out
    kept = yaml.safe_load((permitted.run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert kept["data_changed"] is False
    again = make_config(max_clips=20)  # told once is enough
    assert train(again, other, world, checkpoint.Progress()) == "done"


def test_identity_of_data_is_of_places_sizes_and_hashes_alone(shards):
    index = open_shards(shards, "train")
    index.clips = ClipTable.of(index.folder.location, index.clips)
    before = data_identity.identify(index)
    assert before.clips == len(index) > 0
    named = [replace(clip, label="another") for clip in index.clips]
    index.clips = ClipTable.of(index.folder.location, named)
    assert data_identity.identify(index) == before
    shifted = [replace(named[0], key="another"), *named[1:]]
    index.clips = ClipTable.of(index.folder.location, shifted)
    assert data_identity.identify(index) != before


def other_data(shards: Path, folder: Path) -> Path:
    """The same shards with one clip fewer in the index."""
    shutil.copytree(shards, folder)
    factories.drop_last_clip(folder)
    return folder


def test_longer_run_says_where_the_schedule_jumps(make_config, train_here, capsys):
    train_here(make_config(max_clips=8, warmup_clips=0))
    capsys.readouterr()
    train_here(make_config(max_clips=80, warmup_clips=0))
    message = capsys.readouterr().out
    assert "the learning rate at clip 8 jumps from 3e-05 to" in message
    assert "the schedule was of 8 clips and is of 80 now" in message


class Command:
    """Runs a command when it is unpickled as pickles usually are."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    ("stage", "resumed"),
    [
        (0, 0),
        (1, 1),
        (0, 1),
        (3, 1),
        *(pytest.param(*s, marks=pytest.mark.slow) for s in [(3, 3), (1, 0)]),
    ],
)
def test_no_pickle_runs_on_resume(stage, resumed, make_config, train_here, tmp_path):
    config = make_config(max_clips=4, zero_stage=stage)
    train_here(config)
    folder, mark = checkpoint.folder_of(config.run_dir, 1), tmp_path / "executed"
    entries = {}
    for path in folder.glob("*.pt"):
        state = torch.load(path, map_location="cpu", weights_only=False)
        torch.save(state | {"more": Command(mark)}, path)
        entries[path.name] = (path.stat().st_size, checkpoint.digest(path))
    manifest = checkpoint.read_manifest(folder)
    signed = checkpoint.signed(replace(manifest, files=manifest.files | entries))
    (folder / "manifest.json").write_text(json.dumps(asdict(signed)), encoding="utf-8")
    with pytest.raises(UserError, match="more than data"):
        train_here(make_config(max_clips=8, zero_stage=resumed))
    assert not mark.exists()


def test_checkpoint_of_format_1_needs_trust(make_config, index, world):
    config = make_config(max_clips=4, zero_stage=1)
    config.run_dir.mkdir()
    train(config, index, world, checkpoint.Progress())
    folder = checkpoint.folder_of(config.run_dir, 1)
    manifest = replace(checkpoint.read_manifest(folder), format=1, sha256="")
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)), encoding="utf-8")
    more = make_config(max_clips=8, zero_stage=1)
    with pytest.raises(UserError, match="--trust-checkpoint carries on from it"):
        train(more, index, world, checkpoint.Progress())
    assert train(more, index, world, checkpoint.Progress(), trust_checkpoint=True) == "done"


@pytest.mark.parametrize(
    "junk",
    [b"\xff\xfe\n", b"\0" * 4096, b'{"clips": 4', b"[]\n", b'{"clips": "x"}\n', b"[" * 99_999],
)
def test_metrics_with_junk_in_them_do_not_stop_a_resume(junk, make_config, train_here):
    config = make_config(max_clips=8)
    train_here(config)
    with (config.run_dir / "metrics.jsonl").open("ab") as file:
        file.write(junk)
    assert train_here(make_config(max_clips=12)) == "done"
    assert [line["clips"] for line in terms(config.run_dir)] == [4, 8, 12]
