"""What goes back into the queue and what does not, under a real Slurm with things being killed."""

from __future__ import annotations

import os
import re
import shutil

import pytest

MISSING = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="slurmd needs root"),
]

ENDLESS = "max_clips=1000000"


def test_job_with_a_killed_rank_requeues_only_after_progress(cluster, config):
    job = cluster.train(config, "killed", ENDLESS)
    job.until((job.run / "latest").exists, "first checkpoint")
    job.kill_rank(0)
    job.restarts(1)
    assert "(failure 1 of at most 5 in a row), after a checkpoint of step" in job.log
    job.trains(attempt=2)
    assert job.resumed_from() >= 100
    latest = (job.run / "latest").read_text()
    job.kill_rank(1)
    job.finishes("FAILED")
    assert (job.run / "latest").read_text() == latest, "killed too late for what is tested"
    assert f"no checkpoint after step {job.resumed_from()} was made" in job.log
    assert job.exit()["reason"] == "failed"
    assert job.field("Restarts") == "1"
    assert not job.caches()


def test_job_outlives_a_dead_node_but_not_scancel(cluster, config):
    job = cluster.train(config, "bereft", ENDLESS)
    job.until((job.run / "latest").exists, "first checkpoint")
    dead = job.field("BatchHost")
    cluster.kill_node(job, dead)
    try:
        job.restarts(1)
        job.trains(attempt=2)
        assert re.search(r"the attempt before ended: .* \(failure 1 of at most 5", job.log)
        assert job.field("BatchHost") != dead
        assert job.resumed_from() >= 100
        cluster.slurm("scancel", job.number)
        job.finishes("CANCELLED")
        job.until(lambda: not job.processes(), "last process")
        assert job.exit()["reason"] == "preempted"
        assert job.field("Restarts") == "1"
    finally:
        cluster.start_node(dead)
        for cache in job.caches():
            shutil.rmtree(cache)


def test_chain_carries_on_until_the_run_is_stopped(cluster, config):
    run = config.parent / "chained"
    arguments = ["launch/train.sh", str(config), f"run_dir={run}", ENDLESS]
    numbers = cluster.slurm("bash", "launch/chain.sh", "3", *cluster.options(), *arguments).split()
    first, second, third = (cluster.job(number, run) for number in numbers)
    first.trains()
    (run / "SAVE").touch()
    first.until(lambda: not (run / "SAVE").exists(), "SAVE heeded")
    assert (run / "latest").exists()
    cluster.slurm("scancel", "--batch", "--signal=USR2", first.number)
    first.finishes()
    assert "the next job of the chain carries on" in first.log
    second.trains()
    assert second.resumed_from() > 0
    (run / "STOP").touch()
    second.finishes("FAILED")  # exit code 3: stopped
    assert second.field("ExitCode") == "3:0"
    assert second.exit()["reason"] == "stopped"
    assert not (run / "STOP").exists()
    third.finishes("FAILED")
    assert "the run is over already" in third.log
    assert "preflight" not in third.log
    assert not [cache for job in (first, second, third) for cache in job.caches()]
