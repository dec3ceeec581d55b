"""Runs as a user starts them: killed, signalled, on several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from saved_weights import same, weights

from sdevid import checkpoint
from sdevid.config import Config, dump

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def start(config: Config, *, ranks: int = 1, **environment: str) -> subprocess.Popen[str]:
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config))
    launcher = [sys.executable] if ranks == 1 else [*TORCHRUN, "--standalone"]
    return subprocess.Popen(
        [*launcher, "-m", "sdevid", "train", "--config", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a run printed, once it has ended as it should."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def ending(config: Config) -> dict[str, object]:
    return json.loads((config.run_dir / "exit.json").read_text())


def last_weights(config: Config) -> dict[str, torch.Tensor]:
    return weights(config.run_dir, checkpoint.steps(config.run_dir)[0])


@pytest.mark.parametrize(
    "stage", [2, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 1, 3))]
)
def test_killed_run_restarted_is_bit_equal_to_uninterrupted(stage, make_config):
    settings = {"zero_stage": stage, "max_clips": 80, "save_every": 20}
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    finish(start(whole))
    killed = start(cut)
    wait_for(checkpoint.folder_of(cut.run_dir, 5), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (cut.run_dir / "exit.json").exists()
    assert "carries on from step" in finish(start(cut))
    assert ending(cut)["reason"] == "done"
    assert same(last_weights(whole), last_weights(cut))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_at_the_step_boundary_and_ends(number, make_config):
    config = make_config(max_clips=100_000)
    process = start(config)
    wait_for(config.run_dir / "metrics.jsonl", process)
    process.send_signal(number)
    finish(process, 3)
    reason = "stopped" if number == signal.SIGINT else "preempted"
    step = checkpoint.steps(config.run_dir)[0]
    assert (ending(config)["reason"], ending(config)["step"]) == (reason, step)
    assert checkpoint.read_manifest(checkpoint.folder_of(config.run_dir, step)).clips == 4 * step


def test_second_interrupt_ends_at_once_and_is_written_down(make_config):
    config = make_config(max_clips=100_000)
    process = start(config)
    wait_for(config.run_dir / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.003)
    process.send_signal(signal.SIGINT)
    finish(process, 3)
    assert ending(config)["reason"] == "stopped"
    assert not (config.run_dir / ".owner").exists()


def test_second_start_in_a_folder_is_refused(make_config):
    config = make_config(max_clips=100_000)
    first = start(config)
    wait_for(config.run_dir / "metrics.jsonl", first)
    second = start(config)
    _, err = second.communicate(timeout=100)
    assert second.returncode == 2
    assert f"run_dir {config.run_dir} is in use by process {first.pid} on " in err
    assert "Traceback" not in err
    refused = json.loads((config.run_dir / "exit-refused.json").read_text(encoding="utf-8"))
    assert (refused["reason"], refused["retry"]) == ("refused", False)
    first.send_signal(signal.SIGTERM)
    finish(first, 3)
    steps = [json.loads(line)["step"] for line in (config.run_dir / "metrics.jsonl").open()]
    assert steps == sorted(set(steps))
    assert ending(config)["reason"] == "preempted"


def test_diverging_run_ends_as_nan_and_saves_nothing(make_config):
    config = make_config(max_clips=4_000, observation={"scale": 1e-25})  # its square overflows
    process = start(config)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 4
    assert "training has diverged" in out
    assert ending(config)["reason"] == "nan"
    assert checkpoint.steps(config.run_dir) == []
    for line in (config.run_dir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # NaN is no JSON


def test_user_fault_is_one_message_and_exit_code_2(make_config):
    config = make_config(frame_size=32)
    process = start(config)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "frame_size is 32" in err
    assert "Traceback" not in out + err


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_processes_train_the_run_of_one_and_carry_it_on(stage, make_config):
    settings = {"zero_stage": stage, "max_clips": 40}
    one = make_config("one", **settings)
    two = make_config("two", **settings)
    cut = make_config("cut", save_every=20, **settings)
    finish(start(one))
    finish(start(two, ranks=2))
    got, expected = last_weights(two), last_weights(one)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-2, atol=2e-4)
    killed = start(cut, ranks=2)
    wait_for(checkpoint.folder_of(cut.run_dir, 5), killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    finish(start(cut, ranks=2))
    assert same(last_weights(two), last_weights(cut))


@pytest.mark.slow
def test_launcher_ends_with_the_code_of_its_ranks(make_config):
    config = make_config(data="/none/such")
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config), encoding="utf-8")
    launcher = ["-m", "sdevid.train.torchrun", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "sdevid", "train", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert "shard folder /none/such does not exist" in done.stderr


@pytest.mark.slow
def test_processes_that_do_not_meet_are_in_exit_json(make_config):
    config = make_config()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        process = start(config, **ranks, **address)
        output = process.communicate(timeout=300)[1]
    assert process.returncode == 2, output
    assert "Traceback" not in output
    end = ending(config)
    assert (end["reason"], end["retry"]) == ("failed", True)
    assert f"rank 0 did not meet the other processes at 127.0.0.1:{port}" in str(end["message"])


@pytest.mark.slow
def test_leftovers_of_a_launcher_are_ignored_and_said(make_config):
    left = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1", "RANK": "3"}
    output = finish(start(make_config(), **left))
    for name in left:
        assert f"{name} is set without WORLD_SIZE and is ignored" in output
