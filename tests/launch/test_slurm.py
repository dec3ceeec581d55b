"""Training under a real Slurm with two nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="slurmd needs root"),
]

CONFIG = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 4,
    "batch_size": 4,
    "max_clips": 800,
    "save_every": 400,
    "log_every": 8,
    "zero_stage": 2,
    "sde": {"latent_size": 2, "content_size": 4, "hidden": 16, "depth": 1, "steps_per_frame": 1},
    "encoder": {"channels": 4, "map_size": 4, "features": 16, "layers": 1, "heads": 2},
    "observation": {"max_context": 2},
}


def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


@dataclass
class Cluster:
    """Slurm's commands in the cluster's environment; jobs write to `logs`."""

    environment: dict[str, str]
    logs: Path

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, script: str, *arguments: str) -> str:
        output = f"--output={self.logs}/%j.out"
        return self.run("sbatch", "--parsable", "--nodes=2", output, script, *arguments).strip()

    def field(self, job: str, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", self.run("scontrol", "show", "job", job))
        assert found
        return found[1]

    def log(self, job: str) -> str:
        return (self.logs / f"{job}.out").read_text()

    def finish(self, job: str, state: str = "COMPLETED") -> None:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        until(lambda: self.field(job, "JobState") in ended, 180, f"end of job {job}")
        assert self.field(job, "JobState") == state, self.log(job)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = f"/tmp/sdevid-slurm-{os.getpid()}"  # where the user munge may enter
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    started = subprocess.run(
        ["bash", "slurm/cluster/up.sh", folder, "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    found = re.fullmatch(r"export SLURM_CONF='(.*)'\n", started.stdout)
    assert found, "standard output holds the export lines and nothing else"
    try:
        yield Cluster(environment | {"SLURM_CONF": found[1]}, tmp_path_factory.mktemp("logs"))
    finally:
        subprocess.run(["bash", "slurm/cluster/down.sh", folder], cwd=ROOT, check=True)
    assert not Path(folder).exists()
    assert folder not in subprocess.check_output(["ps", "ax", "-o", "args"], text=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training on drawn video."""
    folder = tmp_path_factory.mktemp("training")
    shards = [sys.executable, "tools/make_shards.py", "--dataset", "ou", "--num_clips", "64"]
    shards += ["--frame_size", "16", "--clip_length", "4", "--splits", "train=1"]
    subprocess.run([*shards, "--output_dir", str(folder / "data")], cwd=ROOT, check=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"data": str(folder / "data")}))
    return path


@pytest.fixture(scope="module")
def trained(cluster: Cluster, config: Path) -> Path:
    """The run folder of an undisturbed training on two nodes."""
    run = config.parent / "undisturbed"
    job = cluster.submit("launch/train.sh", str(config), f"run_dir={run}")
    cluster.finish(job)
    assert re.search(r"world 2\b", cluster.log(job))
    assert not caches(job)
    return run


def caches(job: str) -> list[Path]:
    """What the job left on its nodes' disks."""
    return list(Path("/tmp").glob(f"sdevid-{job}-*"))


def ending(run: Path) -> str:
    return str(json.loads((run / "exit.json").read_text())["reason"])


def losses(run: Path) -> dict[int, float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["clips"]: row["loss"] for row in rows}


def test_two_nodes_train_to_the_end(trained: Path):
    assert ending(trained) == "done"
    assert max(losses(trained)) == CONFIG["max_clips"]


def test_a_preempted_job_saves_requeues_and_carries_on(
    cluster: Cluster, config: Path, trained: Path
):
    run = config.parent / "preempted"
    job = cluster.submit("launch/train.sh", str(config), f"run_dir={run}")
    until(lambda: (run / "metrics.jsonl").exists(), 120, "first metrics")
    cluster.run("scancel", "--batch", "--signal=USR2", job)
    until(lambda: cluster.field(job, "Restarts") == "1", 60, "requeue")
    assert ending(run) == "preempted"
    cluster.finish(job)
    assert ending(run) == "done"
    carried_on = re.search(r"carries on from step (\d+)", cluster.log(job))
    assert carried_on
    assert 0 < int(carried_on[1]) < 200
    assert losses(run)[800] == pytest.approx(losses(trained)[800], rel=1e-5)


def test_a_wrong_setting_ends_the_job_before_training(cluster: Cluster, config: Path):
    job = cluster.submit("launch/train.sh", str(config), "sde.hiden=8")
    cluster.finish(job, state="FAILED")
    assert "did you mean sde.hidden?" in cluster.log(job)
    assert cluster.field(job, "ExitCode") == "2:0"
    assert not caches(job)


def test_two_nodes_share_the_sampling(cluster: Cluster, trained: Path):
    wanted = ["--model_path", str(trained), "--num_samples", "4", "--num_frames", "3"]
    together, alone = trained / "together", trained / "alone"
    job = cluster.submit("launch/sample.sh", *wanted, "--output_dir", str(together))
    command = ["bash", "launch/sample.sh", *wanted, "--output_dir", str(alone)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, check=True)
    cluster.finish(job)
    videos = sorted(path.name for path in alone.glob("*.npz"))
    assert len(videos) == 4
    for name in videos:
        assert (together / name).read_bytes() == (alone / name).read_bytes()
    assert cluster.log(job).count("4 videos in") == 1, "each node sampled everything"
