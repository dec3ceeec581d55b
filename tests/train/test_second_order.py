"""A latent of second order, trained on a motion of second order."""

import json
import math
import subprocess
import sys
from pathlib import Path

from sdevid.checkpoint import Progress
from sdevid.data.shards import open_shards
from sdevid.train.loop import train

ROOT = Path(__file__).resolve().parents[2]


def test_second_order_run_on_a_pendulum_resumes(make_config, world, tmp_path):
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "pendulum", "--workers", "1"]
    shape = ["--num_clips", "24", "--frame_size", "16", "--clip_length", "8", "--store", "npy"]
    folder = tmp_path / "pendulum"
    subprocess.run(
        [*tool, *shape, "--output_dir", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    index, rows = open_shards(folder, "train"), []
    for clips in (12, 20):  # the second goes on from the first's checkpoint
        config = make_config(data=str(folder), sde={"order": 2}, max_clips=clips)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        assert train(config, index, world, Progress()) == "done"
        text = (config.run_dir / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
    assert [row["clips"] for row in rows] == [4, 8, 12, 16, 20]
    for name in ("loss", "reconstruction", "kl_path", "kl_initial", "g_q50"):
        assert all(math.isfinite(row[name]) for row in rows)
    assert all(row["kl_path"] > 0 for row in rows)
