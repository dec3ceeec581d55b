"""`STOP` and `SAVE` in a run's folder."""

from __future__ import annotations

from sdevid import checkpoint


def test_stop_saves_ends_and_is_consumed(make_config, train_here):
    config = make_config(max_clips=400, save_every=400)
    config.run_dir.mkdir()
    stop = config.run_dir / "STOP"
    stop.touch()
    assert train_here(config) == "stopped"
    assert checkpoint.steps(config.run_dir) == [1]
    assert not stop.exists()


def test_save_saves_once_goes_on_and_is_consumed(make_config, train_here):
    config = make_config(max_clips=16, save_every=16)
    config.run_dir.mkdir()
    save = config.run_dir / "SAVE"
    save.touch()
    assert train_here(config) == "done"
    assert checkpoint.steps(config.run_dir) == [4, 1]
    assert not save.exists()


def test_preempted_run_leaves_stop_for_the_next_attempt(make_config, train_here, world):
    config = make_config(max_clips=400, save_every=400)
    config.run_dir.mkdir()
    (config.run_dir / "STOP").touch()
    world.ask_to_stop("preempted")
    assert train_here(config) == "preempted"
    assert (config.run_dir / "STOP").exists()
