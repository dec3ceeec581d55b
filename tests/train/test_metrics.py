"""What a run reports, and what it does with figures that are none."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time

import pytest
import torch

from sdevid.checkpoint import Progress
from sdevid.errors import UserError
from sdevid.train.record.metrics import Metrics, forget_after


def lines(config):
    return [json.loads(t) for t in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


def made(config):
    config.run_dir.mkdir(parents=True)
    return config


def step(loss: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "grad_norm": torch.tensor(1.0)}


def test_line_holds_the_means_since_the_last_and_the_rates(make_config, world):
    config = made(make_config())
    with Metrics(config, world, Progress(), total=100) as metrics:
        for loss in (1.0, 3.0):
            metrics.add(step(loss))
        metrics.flush(Progress(clips=8, step=2), {"learning_rate": 0.5})
        metrics.add(step(7.0))
        metrics.flush(Progress(clips=12, step=3), {"learning_rate": 0.25})
    first, second = lines(config)
    assert (first["clips"], first["step"], first["loss"]) == (8, 2, 2.0)
    assert (second["loss"], second["learning_rate"]) == (7.0, 0.25)
    assert first["clips_per_s"] > 0


def test_time_spent_waiting_for_data_is_told_as_a_share(make_config, world):
    config = made(make_config())

    def slow():
        for item in range(2):
            time.sleep(0.05)
            yield item

    with Metrics(config, world, Progress(), total=100) as metrics:
        for _ in metrics.waiting(slow()):
            time.sleep(0.05)
            metrics.add(step(1.0))
        assert 0.3 < metrics.flush(Progress(clips=8, step=2), {})["data_wait"] < 0.7


def test_skipped_steps_are_counted_and_left_out_of_the_means(make_config, world):
    config = made(make_config())
    with Metrics(config, world, Progress(), total=100) as metrics:
        metrics.add(step(2.0))
        metrics.add(step(math.nan), skipped=True)
        metrics.flush(Progress(clips=8, step=2), {})
        metrics.add(step(math.nan), skipped=True)
        metrics.flush(Progress(clips=12, step=3), {})
    assert [(line["loss"], line["skipped"]) for line in lines(config)] == [(2.0, 1), (None, 1)]


def test_lines_that_a_full_disk_does_not_take_are_written_later(make_config, world, capsys):
    config = made(make_config())
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Metrics(config, world, Progress(), total=100) as metrics:
        for number in range(1, 5):
            metrics.add(step(float(number)))
            full = number == 2  # after 9 bytes of the second line
            most = (config.run_dir / "metrics.jsonl").stat().st_size + 9 if full else limit
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            metrics.flush(Progress(clips=4 * number, step=number), {})
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            assert len(lines(config)) == (1 if full else number), "no torn line either"
    assert [line["loss"] for line in lines(config)] == [1.0, 2.0, 3.0, 4.0]
    assert "lines kept for later: 1" in capsys.readouterr().out


def test_metric_lines_past_the_resume_or_torn_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"clips": 4}\n{"clips": 8}\n{"clips": 12}\n{"clips": 16, "l')
    forget_after(path, 8)
    assert path.read_text() == '{"clips": 4}\n{"clips": 8}\n'


def test_tensorboard_gets_every_figure(make_config, world):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = made(make_config(metrics={"tensorboard": True}))
    with Metrics(config, world, Progress(), total=100) as metrics:
        metrics.add(step(2.0))
        metrics.flush(Progress(clips=4, step=1), {"learning_rate": 0.5})
    events = EventAccumulator(str(config.run_dir / "tensorboard"))
    events.Reload()
    assert {"loss", "grad_norm", "learning_rate", "clips_per_s"} <= set(events.Tags()["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(4, 2.0)]


def test_wandb_writes_offline_where_no_key_is_set(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("frame_size: 16\nchannels: 1\nmetrics: {wandb: true}\n")
    program = (
        "import sys\nfrom pathlib import Path\nimport torch\nfrom sdevid.config import load\n"
        "from sdevid.checkpoint import Progress\nfrom sdevid.train.record.metrics import Metrics\n"
        "from sdevid.train.world import open_world\n"
        "config = load(Path(sys.argv[1]), [f'run_dir={sys.argv[2]}'])\n"
        "config.run_dir.mkdir()\n"
        "with open_world() as world, Metrics(config, world, Progress(), 8) as metrics:\n"
        "    metrics.add({'loss': torch.ones(()), 'grad_norm': torch.ones(())})\n"
        "    metrics.flush(Progress(4, 1), {})\n"
    )
    hidden = ("WANDB_API_KEY", "WANDB_MODE")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    run_dir = tmp_path / "run"
    subprocess.run(
        [sys.executable, "-c", program, str(config), str(run_dir)],
        check=True,
        env=environment | {"HOME": str(tmp_path)},
    )
    kept = (run_dir / "wandb_run_id").read_text()
    assert list((run_dir / "wandb").glob(f"offline-run-*-{kept}/run-{kept}.wandb"))


def test_record_that_is_no_regular_file_is_refused_and_stays(tmp_path):
    pipe, folder, link = (tmp_path / name for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    for path in (pipe, folder, link):
        with pytest.raises(UserError, match="is no regular file; move it away"):
            forget_after(path, 8)
        assert path.is_symlink() or path.exists()
