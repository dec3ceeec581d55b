"""The look at every node before training: what names a node, and what it costs a good one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import factories
import pytest

from sdevid.config import dump
from sdevid.data.shards import open_shards
from sdevid.errors import UserError
from sdevid.train.checkpointing.data_identity import index_digest
from sdevid.train.health import gpus, preflight
from sdevid.train.health.preflight import Report, judge

ROOT = Path(__file__).resolve().parents[3]
FACTS = {"torch": "2.13.0", "data index": "ab12"}
GOOD = [Report(f"n{i}", i, clock=1e9 + i / 10, facts=FACTS, gpu_free=79.0) for i in range(4)]


def judged(rank: int, **value: object) -> list[str]:
    """What is said where that rank found something else."""
    return judge([replace(r, **value) if r.rank == rank else r for r in GOOD])


def test_nodes_that_agree_are_fit():
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"facts": FACTS | {"torch": "2.12.1"}}, "node n2: torch 2.12.1, but 2.13.0 on node n0"),
        ({"facts": FACTS | {"data index": "cd34"}}, "node n2: data index cd34, but ab12"),
        ({"clock": 1e9 + 60}, "node n2: its clock is 60 s ahead"),
        ({"clock": 1e9 - 60}, "node n2: its clock is 60 s behind"),
        ({"gpu_free": 12.0}, "node n2: the GPU of rank 2 has 12.0 GiB free where others have 79.0"),
        ({"faults": ["its disk is full"]}, "node n2: its disk is full"),
    ],
)
def test_node_unlike_the_others_is_named_alone(value, message):
    (fault,) = judged(2, **value)
    assert fault.startswith(message)


def test_on_a_tie_the_first_node_is_right():
    first, second = GOOD[0], replace(GOOD[1], facts=FACTS | {"torch": "2.12.1"})
    assert judge([first, second]) == ["node n1: torch 2.12.1, but 2.13.0 on node n0"]


def test_node_where_the_data_cannot_be_read_is_named_once():
    facts = {"torch": "2.13.0"}
    assert judged(0, facts=facts, faults=["no such folder"]) == ["node n0: no such folder"]


def test_ecc_counts_are_read_as_nvidia_smi_writes_them():
    table = "00000000:0F:00.0, 0\n00000000:1B:00.0, [N/A]\n00000000:4C:00.0, 3\n"
    assert list(gpus.read_counts(table, "errors")) == ["GPU 00000000:4C:00.0 has 3 errors"]


def test_data_digest_is_of_what_the_index_says(shards, tmp_path):
    index = open_shards(shards, "train")
    assert index_digest(index) == index_digest(open_shards(shards, "train"))
    factories.drop_last_clip(shutil.copytree(shards, tmp_path / "other"))
    assert index_digest(index) != index_digest(open_shards(tmp_path / "other", "train"))


def test_one_process_is_looked_at_and_nothing_is_left(make_config, index, world, capsys):
    config = make_config()
    assert list(preflight.check_nodes(config, world).clips) == list(index.clips)
    assert "all fit" in capsys.readouterr().out
    assert [path.name for path in config.run_dir.rglob("*")] == ["checkpoints"]  # and no probe


def test_too_little_disk_for_the_checkpoints_is_told(make_config, world, monkeypatch):
    monkeypatch.setattr(preflight, "_CHECKPOINT_BYTES", 2**50)
    with pytest.raises(
        UserError, match=r"GiB free, but 4 more checkpoints of about .* are to come"
    ):
        preflight.check_nodes(make_config(), world)


def test_gpus_that_were_asked_for_and_do_not_answer_are_told(make_config, world, monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "99")
    with pytest.raises(UserError, match=r"node \S+: \d+ GPUs answer, but 99 were asked for"):
        preflight.check_nodes(make_config(), world)


STUCK = """
import json, pathlib, sys, time
from sdevid.train.health import network
from sdevid.train.world import open_world
network.SECONDS = 2
with open_world() as world:
    world.barrier()
    if world.rank == 2:
        time.sleep(6)
    pathlib.Path(sys.argv[1], f"{world.rank}.json").write_text(json.dumps(network.ring(world)))
"""


@pytest.mark.slow
def test_silent_rank_is_named_by_the_next_one(tmp_path):
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "4", str(script), str(tmp_path)]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    assert all(heard == told[0] for heard in told)
    assert told[0][3] is False


HUNG = """
import os, pathlib, sys, time
from sdevid import config, errors
from sdevid.train.health import network, preflight
from sdevid.train.world import open_world
network.MEETING_SECONDS = 2
os.environ["SLURMD_NODENAME"] = "n" + os.environ["RANK"]
with open_world() as world:
    begun = preflight.%s
    if world.rank == 1:
        preflight.%s = lambda *given: (time.sleep(8), begun(*given))[1]
    try:
        preflight.check_nodes(config.load(pathlib.Path(sys.argv[1])), world)
    except errors.UserError as error:
        print(error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hangs", "what"), [("_open", "has not opened data"), ("_node_disk", "has not looked at")]
)
def test_node_whose_files_do_not_answer_is_named(hangs, what, make_config, tmp_path):
    script, config = tmp_path / "hung.py", tmp_path / "config.yaml"
    script.write_text(HUNG % (hangs, hangs))
    config.write_text(dump(make_config()))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # Each rank stands for a node of its own.
    each = ["--no-python", "--nproc-per-node", "3", "env", "LOCAL_RANK=0", sys.executable]
    done = subprocess.run(
        [*torchrun, *each, str(script), str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"node n1: rank 1 {what}" in done.stdout, done.stderr
    assert "sbatch --exclude=n1;" in done.stdout
    assert done.stdout.count("see rank 0") == 2


@pytest.mark.slow
def test_two_processes_by_hand(make_config, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(dump(make_config()))
    environment = os.environ | {"RANKS": "2", "PYTHON": sys.executable}
    command = ["bash", "launch/local.sh", "preflight", str(config)]
    output = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    assert "1 node, 2 ranks" in output
    assert "GB/s; all fit" in output
