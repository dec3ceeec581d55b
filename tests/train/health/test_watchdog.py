"""Runs that hang, and what is left of them: stacks, exit.json, an exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sdevid.config import Config, dump
from sdevid.train.health.heartbeat import Heartbeat
from sdevid.train.health.stragglers import slowest
from sdevid.train.world import World, node_name

FAULTY = Path(__file__).parents[2] / "drills/faulty.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--max-restarts", "0"]
SIZE = 4  # clips a step
PATIENCE = {"seconds": 3, "start_seconds": 120, "grace_seconds": 4}


def run(config: Config, faults: dict[str, Any], ranks: int = 1) -> subprocess.CompletedProcess[str]:
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config))
    launcher = [sys.executable]
    if ranks > 1:
        launcher += [*TORCHRUN, "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [*launcher, str(FAULTY), json.dumps(faults), "train", "--config", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def ending(config: Config) -> dict[str, Any]:
    return json.loads((config.run_dir / "exit.json").read_text())


def test_heartbeat_holds_step_and_phase_across_restarts():
    heartbeat = Heartbeat()
    assert heartbeat.last.phase == "start"
    heartbeat.beat(7)
    before = heartbeat.last
    with heartbeat.phase("checkpoint"):
        assert (heartbeat.last.step, heartbeat.last.phase) == (7, "checkpoint")
    assert (heartbeat.last.step, heartbeat.last.phase) == (7, "step")
    assert (
        heartbeat.last.at > before.at
    )  # what was spent in the phase does not count against the step


def test_rank_that_hangs_is_ended_with_its_stacks_written(make_config):
    config = make_config(max_clips=40, watchdog=PATIENCE)
    ran = run(config, {"hang": {"serial": 3 * SIZE, "how": "sleep"}})
    assert ran.returncode == 1, ran.stderr
    stacks = (config.run_dir / "stall/rank-0.txt").read_text()
    assert "stall in step 4: rank 0 has not got past it" in stacks
    assert "faulty.py" in stacks
    assert "loop.py" in stacks
    end = ending(config)
    assert (end["reason"], end["step"]) == ("failed", 3)
    assert end["message"].startswith("stall in step 4: rank 0 is in ")
    assert "faulty.py" in end["message"]


def test_call_that_lets_no_thread_run_is_ended_by_the_helper(make_config):
    config = make_config(max_clips=40, watchdog=PATIENCE | {"grace_seconds": 1})
    ran = run(config, {"hang": {"serial": 3 * SIZE, "how": "hold"}})
    assert ran.returncode == -signal.SIGKILL
    assert "Current thread" in ran.stderr
    assert "faulty.py" in ran.stderr


def test_suspended_run_goes_on_where_it_was(make_config):
    config = make_config(max_clips=4_000, watchdog={"seconds": 2, "grace_seconds": 1})
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "sdevid", "train", "--config", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        while not (config.run_dir / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        time.sleep(7)  # beyond the limit, and beyond the helper's
        process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 3, process.stderr.read()
    assert ending(config)["reason"] == "preempted"
    assert not (config.run_dir / "stall").exists()


def test_long_first_step_is_no_stall(make_config):
    config = make_config(max_clips=8, watchdog={"seconds": 2, "start_seconds": 120})
    ran = run(config, {"hang": {"serial": 0, "how": "sleep", "seconds": 4}})
    assert ran.returncode == 0, ran.stderr
    assert not (config.run_dir / "stall").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_rank_that_holds_up_the_others_is_named(how, make_config):
    config = make_config(max_clips=40, watchdog=PATIENCE, zero_stage=2)
    begun = time.monotonic()
    ran = run(config, {"hang": {"serial": 4 * SIZE - 1, "how": how}}, ranks=2)  # on rank 1
    assert ran.returncode != 0
    message = ending(config)["message"]
    folder = config.run_dir / "stall"
    assert "in a collective" not in message
    if how == "sleep":
        assert "stall in step 4: rank 1 is in " in message
        assert (folder / "rank-1.txt").exists()
    else:
        assert message.startswith("stall in step 4: rank 1 does not answer;")
    assert (folder / "rank-0.txt").read_text().startswith("a collective\n")
    recorded = json.loads((folder / "flight-recorder-0.json").read_text())
    assert {entry["profiling_name"] for entry in recorded["entries"]} >= {"gloo:all_reduce"}
    assert time.monotonic() - begun < 200


@pytest.mark.slow
def test_slow_rank_is_named(make_config):
    config = make_config(max_clips=6 * SIZE, zero_stage=2, log_every=2 * SIZE)
    ran = run(config, {"slow": {"rank": 1, "seconds": 0.7}}, ranks=2)
    assert ran.returncode == 0, ran.stderr
    assert f"rank 1 on node {node_name()} is slow" in ran.stdout
    for line in (config.run_dir / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        assert figures["slow_rank"] == 1
        assert figures["slow_ratio"] > 1.5


@pytest.mark.parametrize(
    ("own", "elapsed", "named"), [(3.0, 10.0, True), (0.2, 0.5, False), (3.0, 1000.0, False)]
)
def test_only_a_delay_that_counts_is_told(own, elapsed, named, world, capsys, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "gpu7")
    others = own / 3
    two = World(0, 2, world.device, world.control)
    monkeypatch.setattr(two, "gather", lambda mine: [mine, (others, "gpu8")])
    assert slowest(two, own, elapsed, 1.5) == {"slow_rank": 0, "slow_ratio": pytest.approx(3)}
    assert ("rank 0 on node gpu7 is slow: 3.0 times" in capsys.readouterr().out) is named


def test_memory_that_ran_out_is_reported_and_ends_cleanly(make_config):
    config = make_config(max_clips=40)
    ran = run(config, {"exhaust": {"serial": 2 * SIZE}})
    assert ran.returncode == 2  # the message says what to change
    assert "Traceback" not in ran.stderr
    assert "rank 0 ran out of host memory" in ran.stderr
    assert "micro_batch_size=2 (now 4" in ran.stderr
    assert ending(config)["reason"] == "failed"
    assert ending(config)["step"] == 2
    report = (config.run_dir / "oom/rank-0.txt").read_text()
    assert "batch_size 4: 1 ranks, 4 clips a rank and pass, of 6 frames of 16x16" in report
    sizes = [float(line.split()[0]) for line in report.splitlines() if " GiB  " in line]
    assert len(sizes) == 12
    assert sizes == sorted(sizes, reverse=True)
    assert "of the host's memory at its peak" in report


@pytest.mark.slow
def test_rank_out_of_memory_is_the_cause_in_exit_json(make_config):
    config = make_config(max_clips=40, zero_stage=1)
    assert run(config, {"exhaust": {"serial": 3 * SIZE - 1}}, ranks=2).returncode != 0
    assert "rank 1 ran out of host memory" in ending(config)["message"]


@pytest.mark.slow
def test_error_while_saving_leaves_no_other_rank_waiting(make_config):
    config = make_config(max_clips=SIZE, zero_stage=2)
    begun = time.monotonic()
    assert run(config, {"misfile": {"rank": 1}}, ranks=2).returncode != 0
    assert "rank 1: TypeError: no such thing" in ending(config)["message"]
    assert time.monotonic() - begun < config.checkpoint.patience / 2


def test_stuck_process_group_does_not_hold_the_process():
    program = (
        "import time\nimport torch.distributed as dist\nfrom sdevid.train import world\n"
        "dist.destroy_process_group = lambda: time.sleep(600)\nworld.LEAVING_SECONDS = 0.5\n"
        "with world.open_world():\n    pass\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=100).returncode == 1
