"""The whole of `evaluate` on a small model and drawn video."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdevid.config import dump, parse
from sdevid.evaluate.__main__ import main
from sdevid.models.build import build_model

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 8,
    "sde": {"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1},
    "encoder": {"channels": 8, "features": 16, "layers": 1, "heads": 2, "map_size": 4},
    "observation": {"max_context": 3},
}
FEW = ["--num_clips", "8", "--samples", "4", "--rollouts", "6", "--rollout_frames", "12"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "double-well", "--workers", "1"]
    shape = ["--num_clips", "40", "--frame_size", "16", "--clip_length", "8", "--vertical", "ou"]
    splits = ["--splits", "train=0.5,val=0.5", "--output_dir", str(folder)]
    subprocess.run([*tool, *shape, *splits], cwd=ROOT, check=True, capture_output=True)
    return folder


def save_model(folder, shards, **settings):
    config = parse(SMALL | {"data": str(shards)} | settings)
    torch.manual_seed(0)
    save_file(build_model(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, shards):
    return save_model(tmp_path_factory.mktemp("model"), shards)


def evaluate(model, output, *arguments):
    given = ["--model_path", str(model), "--output", str(output), "--context", "3", *FEW]
    assert main([*given, *arguments]) == 0
    return json.loads(output.read_text())


def test_results_hold_every_part_and_come_again_with_the_same_seed(model, tmp_path):
    first = evaluate(model, tmp_path / "a.json")
    assert first["protocol"]["clips"] == 8
    assert first["elbo"]["elbo"]["standard_error"] > 0
    terms = first["elbo"]
    parts = terms["reconstruction"]["mean"] - sum(
        terms[name]["mean"] for name in ("kl_path", "kl_initial", "kl_content")
    )
    assert terms["elbo"]["mean"] == pytest.approx(parts, rel=1e-6)
    psnr = first["prediction"]["psnr"]
    assert set(psnr) == {"mean_of_samples", "one_sample", "copy_last_frame", "mean_frame"}
    assert len(psnr["one_sample"]["by_frame"]) == 5
    assert set(first["prediction"]["energy_score"]) == {"samples", "copy_last_frame", "mean_frame"}
    assert set(first["motion"]) == {"x", "y"}
    again = evaluate(model, tmp_path / "b.json")
    for results in (first, again):
        del results["provenance"]
    assert first == again


@pytest.mark.parametrize("kind", ["sde_matching", "follmer"])
def test_every_kind_is_evaluated_and_one_without_a_bound_says_so(shards, tmp_path, capsys, kind):
    (tmp_path / "model").mkdir()
    other = save_model(tmp_path / "model", shards, model_type=kind)
    results = evaluate(other, tmp_path / "a.json")
    told = capsys.readouterr().out
    assert results["prediction"]["psnr"]["mean_of_samples"]["mean"] > 0
    if kind == "follmer":
        assert results["elbo"] is None
        assert "ELBO not defined" in told
    else:
        assert results["elbo"]["elbo"]["standard_error"] > 0


def test_baselines_are_those_of_the_clips(model, shards, tmp_path):
    from sdevid.data.shards import open_shards

    results = evaluate(model, tmp_path / "a.json", "--num_clips", "20")
    index = open_shards(shards, "val")
    video = np.stack([index.read(i).video for i in range(len(index))]) / 255
    error = ((video[:, 3:] - video[:, 2:3]) ** 2).mean(axis=(1, 2, 3, 4))
    want = (-10 * np.log10(np.maximum(error, 1e-10))).mean()
    assert results["prediction"]["psnr"]["copy_last_frame"]["mean"] == pytest.approx(want)


def test_pictures_for_the_page_lie_beside_the_results(model, tmp_path):
    evaluate(model, tmp_path / "a.json")
    held = np.load(tmp_path / "a.npz")
    assert held["generated"].shape == (6, 8, 16, 16, 1)
    assert held["real"].shape == (16, 8, 16, 16, 1)
    assert held["samples"].shape == (3, 4, 5, 16, 16, 1)
    assert np.array_equal(held["clips"][0], held["real"][0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--context", "4"], "--context is 4"),
        (["--samples", "1"], "--samples is 1"),
        (["--num_clips", "0"], "--num_clips is 0"),
        (["--split", "test"], "split 'test'"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--output", "/nowhere/results.json"], "/nowhere"),
        (["--model_path", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_settings_end_with_a_word_and_code_2(model, tmp_path, capsys, arguments, named):
    given = ["--model_path", str(model), "--output", str(tmp_path / "a.json")]
    assert main([*given, *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
