"""Stochastic Moving MNIST: what is read off frames, and the protocol over a small set."""

import json
import subprocess
import sys
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio

from sdevid.config import dump, parse
from sdevid.data.shards import open_shards
from sdevid.evaluate.__main__ import main
from sdevid.evaluate.digits.futures import best_and_mean, speeds
from sdevid.evaluate.digits.reader import DigitReading, followed, middles, read, train_reader
from sdevid.objectives import build_model

ROOT = Path(__file__).resolve().parents[3]
SMALL = factories.settings(
    frame_size=32,
    sequence_length=15,
    sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1},
    observation={"max_context": 5},
)


def write_font_digits(folder: Path) -> Path:
    """Ten digits in a font, four times over, as MNIST's files."""
    font, cells = ImageFont.load_default(size=26), []
    for digit in range(10):
        cell = Image.new("L", (28, 28))
        ImageDraw.Draw(cell).text((14, 14), str(digit), fill=255, font=font, anchor="mm")
        cells.append(np.asarray(cell))
    folder.mkdir()
    header = b"".join(n.to_bytes(4) for n in (2051, 40, 28, 28))
    pixels = np.concatenate([cells] * 4).astype(np.uint8).tobytes()
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + pixels)
    header = b"".join(n.to_bytes(4) for n in (2049, 40))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + bytes(list(range(10)) * 4))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "smmnist", "--workers", "1"]
    shape = ["--num_clips", "160", "--frame_size", "32", "--clip_length", "25"]
    where = ["--input_dir", str(write_font_digits(folder / "in")), "--num_digits", "1"]
    splits = ["--splits", "train=0.75,val=0.25", "--output_dir", str(folder / "out")]
    done = subprocess.run(
        [*tool, *shape, *where, *splits], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_places_are_sorted_by_where_each_digit_was():
    """Two digits cross; the reader gives them in any order, and loses one for a frame."""
    a = np.stack([np.linspace(10, 50, 9), np.full(9, 20.0)], 1)
    b = np.stack([np.linspace(50, 10, 9), np.full(9, 40.0)], 1)
    place = np.stack([a, b], axis=1)
    name = np.tile([3.0, 7.0], (9, 1))
    place[::2], name[::2] = place[::2, ::-1], name[::2, ::-1]
    place[4, 0] = name[4, 0] = np.nan
    estimate = followed(DigitReading(place.copy(), name.copy()), np.array([[a[0], b[0]]]), 9)
    seen = np.isfinite(estimate.name[0])
    assert seen.sum() == 17
    assert (estimate.name[0][:, 0][seen[:, 0]] == 3).all()
    assert (estimate.name[0][:, 1][seen[:, 1]] == 7).all()
    np.testing.assert_allclose(estimate.place[0][:, 0][seen[:, 0]], a[seen[:, 0]])


def test_speed_is_that_between_walls():
    """Three pixels a step, a sharp turn, then five: the turn counts for nothing."""
    right = np.stack([3.0 * np.arange(6), np.zeros(6)], 1)
    back = right[-1] - np.stack([5.0 * np.arange(1, 5), np.zeros(4)], 1)
    speed, change = speeds(np.concatenate([right, back])[None, :, None])
    assert np.isnan(speed).sum() == 1
    np.testing.assert_allclose(speed[0, :4, 0], 3)
    np.testing.assert_allclose(speed[0, 5:, 0], 5)
    assert np.nanmax(change) == 0


def test_best_of_k_takes_the_best_mean_over_frames():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 255, (3, 16, 16, 1)).astype(np.uint8)
    result = np.stack([np.clip(real + rng.normal(0, s, real.shape), 0, 255) for s in (40, 10, 80)])
    result = result.astype(np.uint8)
    estimate = best_and_mean(result, real)
    each = [np.mean([peak_signal_noise_ratio(r, f) for r, f in zip(real, k)]) for k in result]  # noqa: B905
    assert estimate["psnr_best"] == pytest.approx(max(each))
    assert estimate["psnr_mean"] == pytest.approx(np.mean(each))
    assert estimate["ssim_best"] > estimate["ssim_mean"]


@pytest.mark.slow
def test_digit_reader_learns_positions_and_labels(shards):
    training, held_out = open_shards(shards, "train"), open_shards(shards, "val")
    reader = train_reader(training, 32, 1, seed=0, steps=300)
    clips = [held_out.read(i) for i in range(20)]
    seen = read(reader, np.concatenate([clip.video for clip in clips]), 1, 64)
    true = np.concatenate([middles(clip.meta, 28) for clip in clips])
    names = np.repeat([int(clip.meta["label"]) for clip in clips], 25)
    error = np.linalg.norm(seen.place - true, axis=-1)
    assert np.nanmedian(error) < 2
    assert (seen.name[:, 0] == names).mean() > 0.8  # the same ten shapes: chance is 0.1
    assert np.isnan(seen.place).mean() < 0.05
    blank = np.full((3, 32, 32, 1), 40, np.uint8)
    assert np.isnan(read(reader, blank, 1, 64).place).all()


@pytest.mark.slow
def test_protocol_says_how_it_was_done(shards, tmp_path):
    config = parse(SMALL | {"data": str(shards)})
    torch.manual_seed(0)
    save_file(build_model(config).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(dump(config))
    asked = ["--metrics", "digits", "--best_of", "5", "--num_clips", "4"]
    assert main(["--model_path", str(tmp_path), *asked]) == 0
    result = json.loads((tmp_path / "results.json").read_text())["digits"]
    text = [result[key] for key in ("generator", "best_of", "context", "predicted", "clips")]
    assert text == ["srvp", 5, 5, 20, 4]
    scores = result["scores"]
    assert len(scores["energy_score"]["by_frame"]) == 20
    assert scores["identity_real"]["mean"] > 0.9
    assert scores["explained_real"]["mean"] > 0.9
    assert scores["explained"]["mean"] < 0.5  # of an untrained model
    assert len(scores["brightness"]["by_frame"]) == 20
    assert scores["psnr_best"]["mean"] > scores["psnr_mean"]["mean"]
    table = (tmp_path / "results.txt").read_text()
    assert "srvp's: 5 frames seen, 20 predicted, 4 clips, K = 5" in table


@pytest.mark.slow
def test_other_shards_have_no_digits(shards, tmp_path, capsys):
    config = parse(SMALL | {"data": str(shards)})
    save_file(build_model(config).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(dump(config))
    assert main(["--model_path", str(tmp_path), "--metrics", "motion"]) == 2
    assert "no SDE is known that moves what the shards of smmnist show" in capsys.readouterr().err
