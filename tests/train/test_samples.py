"""Samples during training: made of each checkpoint, with their seed, changing nothing."""

from __future__ import annotations

import json

import numpy as np

from sdevid import checkpoint
from sdevid.sample.video_sde import VideoSDE


def test_samples_are_those_of_the_checkpoint_and_seed(make_config, train_here):
    config = make_config(max_clips=16, save_every=8, seed=3)
    assert train_here(config) == "done"
    folder = config.run_dir / "training_samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        "real.npz",
        "step_2.npz",
        "step_4.npz",
    ]
    model = VideoSDE.from_pretrained(checkpoint.folder_of(config.run_dir, 2))
    with np.load(folder / "step_2.npz") as held:
        assert (int(held["seed"]), int(held["clips"]), int(held["step"])) == (3, 8, 2)
        again = model.sample(num_samples=4, seed=3, batch_size=4)
        assert np.array_equal(held["generated"], again)


def test_sampling_leaves_training_as_it_was(make_config, train_here):
    with_samples = make_config("with", max_clips=16, save_every=4)
    without = make_config("without", max_clips=16, save_every=4, sample_every=0)
    for config in (with_samples, without):
        assert train_here(config) == "done"
    ends = [
        checkpoint.read_manifest(checkpoint.folder_of(config.run_dir, 4))
        for config in (with_samples, without)
    ]
    assert ends[0].sums == ends[1].sums
    assert not (without.run_dir / "training_samples").exists()


def test_each_start_is_noted_with_where_it_begins(make_config, train_here):
    for clips in (8, 16):
        train_here(make_config(max_clips=clips, save_every=8))
    path = make_config().run_dir / "starts.jsonl"
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["clips"], line["processes"]) for line in noted] == [
        (0, 0, 1),
        (2, 8, 1),
    ]


def test_every_second_checkpoint_is_sampled_where_asked(make_config, train_here):
    config = make_config(max_clips=16, save_every=4, sample_every=2)
    train_here(config)
    names = {path.stem for path in (config.run_dir / "training_samples").glob("step_*")}
    assert names == {"step_2", "step_4"}


def test_failed_sampling_is_reported_and_training_goes_on(make_config, train_here, capsys):
    config = make_config(max_clips=8, save_every=8)
    config.run_dir.mkdir()
    (config.run_dir / "training_samples").write_text("in the way")
    assert train_here(config) == "done"
    assert "warning: no samples of step 2" in capsys.readouterr().out
