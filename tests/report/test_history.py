"""What is wrong with a run is said on its page, each thing once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdevid.config import dump, parse
from sdevid.report.page import page
from sdevid.report.record import read
from sdevid.report.samples import MOST, files

RESULTS = {
    "protocol": {"clips": 4, "checkpoint": "step_1", "weights": "ema", "seed": 0, "fps": 8.0},
    "provenance": {
        "command": "sdevid evaluate",
        "machine": {"processor": "x", "cores": 1, "memory_gib": 1, "gpus": [], "system": "Linux"},
        "versions": {},
        "seconds": 1.0,
    },
}


@pytest.fixture
def folder(tmp_path):
    config = parse({"frame_size": 16, "channels": 1, "encoder": {"map_size": 4}})
    (tmp_path / "config.yaml").write_text(dump(config))
    lines = [{"clips": 8 * step, "step": step, "loss": 1.0} for step in (1, 2, 3)]
    write_metrics(tmp_path, lines)
    return tmp_path


def write_metrics(folder, lines):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_run_not_measured_says_so_once(folder):
    text = page(read(folder))
    assert text.count("nothing was measured") == 1
    assert "Nothing was measured on" not in text
    assert 'class="warning"' not in text


def test_steps_out_of_order_are_said(folder):
    write_metrics(folder, [{"clips": 8 * step, "step": step} for step in (1, 5, 2, 6)])
    assert "Steps run out of order 1 times (first: 5, then 2)" in page(read(folder))


def test_another_start_in_the_folder_is_said(folder):
    refused = {"reason": "refused", "step": 0, "clips": 0, "time": 86_400.0}
    (folder / "exit-refused.json").write_text(json.dumps(refused))
    text = page(read(folder))
    assert "Two owners: another training was started in this folder on 1970-01-02 at 00:00" in text


@pytest.mark.parametrize(
    ("videos", "message"), [(1, "one source video alone"), (2, "2 source videos alone"), (3, None)]
)
def test_few_held_out_videos_are_said(folder, videos, message):
    results = RESULTS | {"protocol": RESULTS["protocol"] | {"videos": videos}}
    (folder / "results.json").write_text(json.dumps(results))
    text = page(read(folder))
    assert ("What was measured comes from" in text) == (message is not None)
    assert message is None or message in text


def test_samples_over_training_play_beside_real_video(folder):
    samples = folder / "training_samples"
    samples.mkdir()
    videos = np.zeros((4, 6, 16, 16, 1), np.uint8)
    np.savez(samples / "real.npz", generated=videos, fps=8.0)
    for step in range(10, 110, 10):
        figures = {"step": step, "clips": 8 * step, "seed": 7, "fps": 8.0}
        np.savez(samples / f"step_{step}.npz", generated=videos, **figures)
    (samples / "step_110.npz").write_bytes(b"being written")
    assert [path.stem for path in files(folder)][:2] == ["step_10", "step_20"]
    text = page(read(folder))
    assert text.count("data:video/mp4") == 1 + MOST - 1  # real, and all but the torn one
    assert "Step 10, clip 80, seed 7" in text
    assert "<figcaption>Real</figcaption>" in text


def test_history_tells_starts_resumes_and_skipped_steps_in_order(folder):
    starts = [
        {"time": 1e9, "step": 0, "clips": 0, "processes": 1, "zero_stage": 0},
        {"time": 1e9 + 50, "step": 2, "clips": 16, "processes": 4, "zero_stage": 2},
    ]
    (folder / "starts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in starts))
    lines = [
        {"clips": 8 * step, "step": step, "time": 1e9 + 20 * step, "skipped": int(step == 3)}
        for step in (1, 2, 3)
    ]
    write_metrics(folder, lines)
    text = page(read(folder))
    history = text[text.index(">History</h2>") :]
    events = ["started on 1 process, ZeRO 0", "first figures", "resumed on 4 processes, ZeRO 2"]
    events.append("updates of 1 bad steps skipped")
    assert [history.index(event) for event in events] == sorted(map(history.index, events))
