"""Training, sampling and preflight under a real Slurm with nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="slurmd needs root"),
]


def losses(run: Path) -> dict[int, float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["clips"]: row["loss"] for row in rows}


def test_two_nodes_train_to_the_end(trained):
    assert trained.exit()["reason"] == "done"
    assert max(losses(trained.run)) == 800
    assert re.search(r"preflight: 2 nodes, 2 ranks.* GB/s; all fit", trained.log)
    assert re.search(r"world 2\b", trained.log)
    assert not trained.caches()


def test_preempted_job_ends_as_the_undisturbed_one(cluster, config, trained):
    job = cluster.train(config, "preempted")
    job.trains()
    cluster.slurm("scancel", "--batch", "--signal=USR2", job.number)
    job.restarts(1)
    assert job.exit()["reason"] == "preempted"
    job.trains(attempt=2)
    cluster.slurm("scontrol", "requeue", job.number)
    job.restarts(2)
    job.finishes()
    assert "the attempt before ended: preempted" in job.log
    assert job.exit()["reason"] == "done"
    assert 0 < job.resumed_from() < 200
    assert losses(job.run)[800] == pytest.approx(losses(trained.run)[800], rel=1e-5)
    assert not job.caches()


def test_wrong_setting_ends_the_job_before_training(cluster, config):
    job = cluster.train(config, "wrong", "sde.hiden=8")
    job.finishes("FAILED")
    assert "did you mean sde.hidden?" in job.log
    assert job.field("ExitCode") == "2:0"
    assert not job.caches()


@pytest.mark.parametrize("script", [("submit.sh",), ("chain.sh", "2")])
@pytest.mark.parametrize(
    ("options", "environment"),
    [(("--time=5",), {}), (("-t", "0:59"), {}), ((), {"SBATCH_TIMELIMIT": "00:04:59"})],
)
def test_time_limit_within_the_grace_is_refused_at_submission(
    script, options, environment, cluster, config
):
    name, *count = script
    arguments = ["bash", f"launch/{name}", *count, *cluster.options(), *options, "launch/train.sh"]
    done = subprocess.run(
        [*arguments, str(config)],
        cwd=ROOT,
        env=cluster.environment | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "so nothing would be trained; submit with --time=15 or more" in done.stderr
    queued = cluster.slurm("squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%i %j %T")
    assert queued == ""


def test_time_limit_within_the_grace_ends_the_job_at_once(cluster, config):
    arguments = ["--time=5", "launch/train.sh", str(config)]
    number = cluster.slurm("sbatch", "--parsable", *cluster.options(1), *arguments).strip()
    job = cluster.job(number, config.parent / "short")
    job.finishes("FAILED")
    assert job.field("ExitCode") == "2:0"
    assert "submit with --time=15 or more" in job.log
    assert not job.run.exists()


def test_preflight_names_a_node_of_another_version(cluster, config, tmp_path):
    other = tmp_path / "other"
    for package in ("sdevid", "kernels"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "sdevid/__init__.py").open("a") as file:
        file.write("# of another day\n")
    python = tmp_path / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f"[ $SLURM_NODEID != 1 ] || export PYTHONSAFEPATH=1 PYTHONPATH={other}:{other}/kernels\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    job = cluster.train(config, "unfit", nodes=3, PYTHON=str(python))
    job.finishes("FAILED")
    second = cluster.slurm("scontrol", "show", "hostnames", job.field("NodeList")).split()[1]
    assert f"node {second}: sdevid source" in job.log
    assert f"sbatch --exclude={second}" in job.log
    assert "starts at clip" not in job.log
    assert (job.exit()["reason"], job.exit()["retry"]) == ("failed", False)
    assert job.field("Restarts") == "0"


def test_two_nodes_share_the_sampling(cluster, trained):
    wanted = ["--model_path", str(trained.run), "--num_samples", "4", "--num_frames", "3"]
    together, alone = trained.run / "together", trained.run / "alone"
    arguments = [*wanted, "--output_dir", str(together)]
    job = cluster.submit("launch/sample.sh", *arguments, run=trained.run)
    command = ["bash", "launch/sample.sh", *wanted, "--output_dir", str(alone)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, check=True)
    job.finishes()
    videos = sorted(path.name for path in alone.glob("*.npz"))
    assert len(videos) == 4
    for name in videos:
        assert (together / name).read_bytes() == (alone / name).read_bytes()
    assert job.log.count("4 videos in") == 1, "each node sampled everything"
