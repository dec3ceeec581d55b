"""The benchmark of reading runs, and its readers see the same clips."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_benchmark_compares_like_with_like(tmp_path):
    output = tmp_path / "data.csv"
    few = ["--clips", "64", "--rounds", "1", "--sizes", "32", "--no_training"]
    command = [sys.executable, "benchmarks/data.py", *few, "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["store"] for row in rows] == ["npy"] * 4 + ["mp4"] * 4
    assert all(float(row["clips_per_s"]) > 0 for row in rows)
    assert [row["times_webdataset"] for row in rows[::4]] == ["1.0", "1.0"]
    assert all(row["date"] and row["machine"] and row["webdataset"] for row in rows)
