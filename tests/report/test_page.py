"""The page of a run: whole, self-contained, and there whatever the run has so far."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import factories
import pytest
import torch
from safetensors.torch import save_file

from sdevid.config import dump, parse
from sdevid.evaluate.__main__ import main as evaluate
from sdevid.evaluate.digits.futures import TITLES
from sdevid.models.latent_sde import LatentSDE
from sdevid.report.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = factories.settings(
    sequence_length=8, sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)
TERMS = ("elbo", "reconstruction", "kl_path", "kl_initial", "kl_content", "control_energy")
VOID = {"meta", "img", "source", "br"}


class Markup(HTMLParser):
    """Fails on a tag that is closed out of turn; collects what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href", "srcset") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Nothing stays open."""

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, tag


def read(folder: Path) -> str:
    assert main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    markup = Markup()
    markup.feed(text)
    assert markup.open == []
    assert all(place.startswith(("data:", "#")) for place in markup.fetched)
    library = (ROOT / "sdevid" / "report" / "assets" / "uPlot.iife.min.js").read_text()
    assert "://" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text.replace(library, ""))
    return text


def metrics(folder: Path, lines: int = 400) -> None:
    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(1, lines + 1):
            terms = dict.fromkeys(TERMS, None if i == 7 else 100.0 * i / lines)
            extra = {"grad_norm": 1.0, "clips_per_s": 50.0, "data_wait": 0.1, "g_q50": 0.6}
            line = {"clips": 32 * i, "step": i, "time": 1e9 + i, **terms, **extra}
            file.write(json.dumps(line) + "\n")
        file.write('{"clips": 99, "st')


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small <run>"
    folder.mkdir()
    shards = tmp_path_factory.mktemp("shards")
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "ou", "--workers", "1"]
    shape = ["--num_clips", "20", "--frame_size", "16", "--clip_length", "8"]
    splits = ["--splits", "train=0.5,val=0.5", "--output_dir", str(shards)]
    subprocess.run([*tool, *shape, *splits], cwd=ROOT, check=True, capture_output=True)
    config = parse(SMALL | {"data": str(shards)})
    torch.manual_seed(0)
    save_file(LatentSDE(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    few = ["--samples", "3", "--rollouts", "4", "--rollout_frames", "10", "--context", "3"]
    assert evaluate(["--model_path", str(folder), *few]) == 0
    metrics(folder)
    (folder / "exit.json").write_text('{"reason": "done", "step": 400}')
    return folder


def test_finished_run_shows_every_section(run):
    text = read(run)
    for heading in (
        "The bound over training",
        "Generated beside real video",
        "Prediction from 3 frames",
        "Fans of futures",
        "Is the SDE right?",
        "Futures beside baselines",
        "Where it fails",
        "64 futures beside the simulator's",
        "Every figure",
        "Diagnostics",
        "How it was made",
    ):
        assert f">{heading}</h2>" in text, heading
    assert "small &lt;run&gt;" in text
    assert "rightly worse in PSNR than copying" in text
    assert "ended: done" in text
    assert text.count("data:video/mp4") == 2 + 3  # free and real; a fan of each of three clips


def test_futures_stand_beside_baselines_in_card_and_table(run):
    text = read(run)
    assert "Fair CRPS of futures" in text
    assert "Central 90 % intervals hold" in text
    for title in ("Fair CRPS by lead time", "Coverage of central intervals", "Rank histogram"):
        assert title in text
    for forecast in ("model", "persistence", "climatology", "random past clip", "optical flow"):
        assert re.search(rf"<td[^>]*>{forecast}</td>", text), forecast


def test_video_of_unknown_motion_leaves_out_the_sde(run, tmp_path):
    for name in ("config.yaml", "results.npz", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    results = json.loads((run / "results.json").read_text())
    results["motion"] = None
    for name in ("rates", "simulator_futures", "futures"):
        del results[name]
    del results["prediction"]["energy_score"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = read(tmp_path)
    assert "Is the SDE right?" not in text
    assert "energy score" not in text


def test_other_frame_rates_stand_side_by_side(run):
    text = read(run)
    assert "At other frame rates" in text
    for rate in (4, 8, 16, 32):
        assert f"<th>{rate} frames a second</th>" in text
    assert "first-passage time, s" in text
    assert "Ranks of what came" in text


def test_run_with_few_metrics_shows_those(run, tmp_path):
    for name in ("config.yaml", "results.npz", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    whole = json.loads((run / "results.json").read_text())
    score = {"mean": 0.5, "standard_error": 0.1, "interval": [0.3, 0.7]}
    digits = {"generator": "srvp", "context": 5, "predicted": 20, "clips": 4, "best_of": 100}
    names = [*TITLES, "identity_real", "speed_real"]
    kept = {key: whole[key] for key in ("protocol", "provenance")}
    kept["digits"] = digits | {"scores": dict.fromkeys(names, score)}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    text = read(tmp_path)
    assert "Stochastic Moving MNIST, srvp's generator" in text
    assert "best of K = 100" in text
    assert "0.3000 to 0.7000" in text
    assert "Prediction from" not in text


def test_run_not_measured_yet_names_the_command(tmp_path):
    (tmp_path / "config.yaml").write_text(dump(parse(SMALL)))
    metrics(tmp_path, lines=3)
    text = read(tmp_path)
    assert f"python -m sdevid evaluate --model_path {tmp_path}" in text
    assert "not ended yet" in text


def test_run_not_trained_yet_names_the_command(tmp_path):
    (tmp_path / "config.yaml").write_text(dump(parse(SMALL)))
    assert f"python -m sdevid train --config {tmp_path}/config.yaml" in read(tmp_path)


def test_page_of_no_run_or_a_damaged_one_is_refused_by_name(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert main([str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
    metrics(tmp_path, lines=2)
    for name in ("results.json", "results.npz"):
        (tmp_path / name).write_text("{")
        assert main([str(tmp_path)]) == 2
        assert name in capsys.readouterr().err
        (tmp_path / name).unlink()


def test_demo_page_is_written_from_the_results(run, tmp_path):
    tool = [sys.executable, "tools/demo_page.py", str(run), "--output", str(tmp_path / "demo.md")]
    subprocess.run(tool, cwd=ROOT, check=True, capture_output=True)
    text = (tmp_path / "demo.md").read_text()
    results = json.loads((run / "results.json").read_text())
    model = results["futures"]["forecasts"]["model"]["channels"][0]
    assert "Worst bin of the squared diffusion" in text
    row = next(line for line in text.splitlines() if line.startswith("| model |"))
    assert float(row.split("|")[2].split()[0]) == pytest.approx(model["crps"]["1"]["mean"], rel=0.1)
