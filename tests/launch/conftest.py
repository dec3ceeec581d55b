"""A real Slurm with three nodes on this machine, and a tiny training for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NODES = 3  # one more than a job takes, to carry on where one is dead
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
CONFIG = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 4,
    "batch_size": 4,
    "num_epochs": 1_000_000,
    "max_clips": 800,
    "save_every": 400,
    "log_every": 8,
    "zero_stage": 2,
    "sde": {"latent_size": 2, "content_size": 4, "hidden": 16, "depth": 1, "steps_per_frame": 1},
    "encoder": {"channels": 4, "map_size": 4, "features": 16, "layers": 1, "heads": 2},
    "observation": {"max_context": 2},
    "text": {"encoder": "none"},
}


def until(true: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what()}"
        time.sleep(0.2)


@dataclass
class Job:
    """A job of the cluster, and the folder of the run that it trains."""

    cluster: Cluster
    number: str
    run: Path

    @property
    def log(self) -> str:
        path = self.cluster.logs / f"{self.number}.out"
        return path.read_text() if path.exists() else ""

    def field(self, name: str) -> str:
        """What `scontrol show job` says of it."""
        shown = self.cluster.slurm("scontrol", "show", "job", self.number)
        result = re.search(rf"\b{name}=(\S+)", shown)
        assert result
        return result[1]

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait, at most as long as a loaded machine may take."""
        until(true, 150, lambda: f"{what} of job {self.number}\n{self.log}")

    def trains(self, attempt: int = 1) -> None:
        """Wait until the attempt is training: it has written a line since it began."""
        begins = f"attempt {attempt}:"
        self.until(lambda: begins in self.log, begins)
        began = time.time()
        metrics = self.run / "metrics.jsonl"
        self.until(lambda: metrics.exists() and metrics.stat().st_mtime > began, "training")

    def restarts(self, times: int) -> None:
        self.until(lambda: self.field("Restarts") == str(times), f"restart {times}")

    def finishes(self, state: str = "COMPLETED") -> None:
        self.until(lambda: self.field("JobState") in ENDED, "end")
        assert self.field("JobState") == state, self.log

    def resumed_from(self) -> int:
        """Where the last attempt carried on."""
        steps = re.findall(r"carries on from step (\d+)", self.log)
        assert steps, self.log
        return int(steps[-1])

    def processes(self, **environment: str) -> list[psutil.Process]:
        """Those that run for the job, with these values in their environment."""
        wanted = {"SLURM_JOB_ID": self.number} | environment
        return [p for p in psutil.process_iter() if wanted.items() <= _environment(p).items()]

    def kill_rank(self, rank: int) -> None:
        (process,) = self.processes(RANK=str(rank))
        process.send_signal(signal.SIGKILL)

    def caches(self) -> list[Path]:
        """What it left on its nodes' disks."""
        return list(Path("/tmp").glob(f"sdevid-{self.number}-*"))

    def exit(self) -> dict[str, object]:
        return json.loads((self.run / "exit.json").read_text())


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@dataclass
class Cluster:
    """Slurm's commands in the cluster's environment; jobs write to `logs`."""

    environment: dict[str, str]
    folder: Path
    logs: Path

    def slurm(self, *command: str, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def options(self, nodes: int = 2) -> list[str]:
        return [f"--nodes={nodes}", f"--output={self.logs}/%j.out"]

    def submit(
        self, script: str, *arguments: str, run: Path, nodes: int = 2, **environment: str
    ) -> Job:
        options = [*self.options(nodes), script, *arguments]
        return self.job(self.slurm("sbatch", "--parsable", *options, **environment).strip(), run)

    def job(self, number: str, run: Path) -> Job:
        return Job(self, number, run)

    def train(
        self, config: Path, run: str, *settings: str, nodes: int = 2, **environment: str
    ) -> Job:
        folder = config.parent / run
        arguments = [str(config), f"run_dir={folder}", *settings]
        return self.submit("launch/train.sh", *arguments, run=folder, nodes=nodes, **environment)

    def kill_node(self, job: Job, node: str) -> None:
        """End all that runs on a node, at once, as a loss of power would."""
        daemon = psutil.Process(int((self.folder / f"slurmd-{node}.pid").read_text()))
        assert daemon.name().startswith("slurmd")
        theirs = job.processes(SLURMD_NODENAME=node)
        steps = [p for p in map(psutil.Process.parent, theirs) if p and "slurmstepd" in p.name()]
        assert steps
        for process in [daemon, *dict.fromkeys(steps), *theirs]:
            process.suspend()  # none may tell of another's death
        for process in [daemon, *dict.fromkeys(steps), *theirs]:
            process.kill()

    def start_node(self, node: str) -> None:
        self.slurm("slurmd", "-N", node, SDEVID_CLUSTER=str(self.folder))
        idle = ["sinfo", "-h", "-t", "idle", "-n", node, "-o", "%N"]
        until(lambda: self.slurm(*idle).strip() == node, 60, lambda: f"{node} idle")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = Path(f"/tmp/sdevid-slurm-{os.getpid()}")  # where the user munge may enter
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    started = subprocess.run(
        ["bash", "slurm/cluster/up.sh", str(folder), str(NODES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    result = re.fullmatch(r"export SLURM_CONF='(.*)'\n", started.stdout)
    assert result, "standard output holds the export lines and nothing else"
    try:
        environment["SLURM_CONF"] = result[1]
        yield Cluster(environment, folder, tmp_path_factory.mktemp("logs"))
    finally:
        subprocess.run(["bash", "slurm/cluster/down.sh", str(folder)], cwd=ROOT, check=True)
    assert not folder.exists()
    assert str(folder) not in subprocess.check_output(["ps", "ax", "-o", "args"], text=True)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training on drawn video."""
    folder = tmp_path_factory.mktemp("training")
    shards = [sys.executable, "tools/make_shards.py", "--dataset", "ou", "--num_clips", "64"]
    shards += ["--frame_size", "16", "--clip_length", "4", "--splits", "train=1"]
    subprocess.run([*shards, "--output_dir", str(folder / "data")], cwd=ROOT, check=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG | {"data": str(folder / "data")}))
    return path


@pytest.fixture(scope="session")
def trained(cluster: Cluster, config: Path) -> Job:
    """An undisturbed training on two nodes."""
    job = cluster.train(config, "undisturbed")
    job.finishes()
    return job
