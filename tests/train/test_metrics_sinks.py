"""What lies beside metrics.jsonl may fail: a line, once, and the run goes on."""

from __future__ import annotations

import socket

import pytest

from sdevid.checkpoint import Progress
from sdevid.train.record import metrics_sinks


@pytest.fixture
def nobody(monkeypatch):
    """A key for wandb, and a server that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.mark.usefixtures("nobody")
def test_wandb_without_network_is_offline_and_says_so_once(capsys):
    assert metrics_sinks.wandb_mode() == "offline"
    assert capsys.readouterr().out.count("does not answer") == 1


@pytest.mark.parametrize(
    ("key", "mode", "expected"),
    [(None, None, "offline"), (None, "disabled", "disabled"), ("0" * 40, "offline", "offline")],
)
def test_wandb_mode_follows_the_environment(key, mode, expected, monkeypatch):
    for name, value in (("WANDB_API_KEY", key), ("WANDB_MODE", mode)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert metrics_sinks.wandb_mode() == expected


def test_server_that_answers_is_used(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        assert metrics_sinks.wandb_mode() == "online"


def test_tensorboard_folder_that_cannot_be_made_is_one_line(make_config, capsys):
    config = make_config(metrics={"tensorboard": True})
    config.run_dir.mkdir()
    (config.run_dir / "tensorboard").touch()
    (sink,) = metrics_sinks.open_sinks(config, Progress())
    for clips in (4, 8):
        sink.write(clips, {"loss": 1.0})
    sink.close()
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    assert message.startswith("TensorBoard cannot be opened (")


def test_sink_that_fails_later_is_dropped_with_one_line(capsys):
    class Failing:
        writes = 0

        def write(self, clips, figures):  # noqa: ARG002
            self.writes += 1
            if self.writes > 1:
                raise BrokenPipeError("gone")

        def close(self):
            raise AssertionError("it was dropped")

    failing = Failing()
    sink = metrics_sinks._Guarded("wandb", lambda: failing)
    for clips in (4, 8, 12):
        sink.write(clips, {})
    sink.close()
    assert failing.writes == 2
    assert capsys.readouterr().out == "wandb takes no more (gone); going on without it\n"
