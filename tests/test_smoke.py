"""The whole path in one go: draw and cut, train, carry on, sample, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 8,
    "batch_size": 8,
    "log_every": 8,
    "save_every": 80,
    "max_clips": 160,
    "zero_stage": 0,
    "preflight": False,
    "sde": {"latent_size": 2, "content_size": 3, "hidden": 8, "depth": 1, "steps_per_frame": 1},
    "encoder": {"channels": 4, "features": 8, "layers": 1, "heads": 2, "map_size": 4},
    "observation": {"max_context": 2},
    "text": {"encoder": "none"},
}


def sdevid(*arguments: object) -> str:
    command = [sys.executable, "-m", "sdevid", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.smoke
def test_shards_train_sample_report_end_to_end(tmp_path):
    shards, run = tmp_path / "shards", tmp_path / "run"
    tool = [sys.executable, "-m", "sdevid", "shards", "--dataset", "ou", "--num_clips", "40"]
    shape = ["--frame_size", "16", "--clip_length", "8", "--workers", "1"]
    subprocess.run([*tool, *shape, "--output_dir", shards], cwd=ROOT, check=True)
    config = tmp_path / "smoke.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"data": str(shards), "run_dir": str(run)}))
    output = sdevid("train", "--config", config, "max_clips=80", "--profile")
    assert "Self CPU" in output
    assert json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    sdevid("train", "--config", config)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["clips"] == 160
    assert [line["clips"] for line in lines] == sorted({line["clips"] for line in lines})
    samples = tmp_path / "samples"
    sdevid("sample", "--model_path", run, "--output_dir", samples, "--num_frames", 5)
    assert list(samples.glob("*.mp4"))
    sdevid("report", run)
    assert "The bound over training" in (run / "report.html").read_text()
