"""SIGKILL at random times of `train` and `make_shards`: what comes out is the same to the bit."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drills.trials import ROOT, Run, draw_clips, equal

KILLS = 10
SEED = 20261129  # of the times


def killed_at_random(start: Callable[[], subprocess.Popen[str]], took: float) -> list[float]:
    """Start `KILLS` times and end each by SIGKILL, but those that end before; the times."""
    times, rng = [], random.Random(SEED)
    for _ in range(KILLS):
        process, patience = start(), rng.uniform(0.3, 1.1) * took
        try:
            process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            times.append(round(patience, 2))
    print(f"seed {SEED}, {took:.1f} s undisturbed: {len(times)} of {KILLS} killed, after {times} s")
    return times


@pytest.mark.slow
def test_train_killed_at_random_equals_an_undisturbed_run(tmp_path):
    data = draw_clips(tmp_path / "clips")
    whole, run = (Run(tmp_path / name, data, ranks=1) for name in ("whole", "run"))
    began = time.monotonic()
    whole.finish()
    slowly = {"slow": {"rank": 0, "seconds": 0.2}}  # or nearly all of a start were imports
    assert killed_at_random(lambda: run.start(slowly), time.monotonic() - began + 2.4)
    run.finish()
    assert equal(run, whole) == "equal to the bit"


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder, and its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_make_shards_killed_at_random_equals_an_undisturbed_cut(tmp_path):
    def start(folder: Path) -> subprocess.Popen[str]:
        tool = [sys.executable, "tools/make_shards.py", "--dataset", "ou", "--workers", "2"]
        shape = ["--num_clips", "400", "--frame_size", "32", "--clip_length", "8"]
        return subprocess.Popen(
            [*tool, *shape, "--shard_size", "16", "--output_dir", str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    took = time.monotonic() - began
    assert killed_at_random(lambda: start(tmp_path / "cut"), took)
    assert start(tmp_path / "cut").wait() == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
