"""Metrics of data that are no 8-bit pictures: in the range of their transform, under their mask."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdevid import objectives
from sdevid.cli.shards import main as cut
from sdevid.config import dump, parse
from sdevid.data.shards import open_shards
from sdevid.evaluate.__main__ import main
from sdevid.sample.write import CHEQUER

STEP = 100.0  # mm/h from frame to frame: beyond HIGH from the sixth frame on
HIGH = 500.0
CONTEXT = 3


@pytest.fixture(scope="module")
def rain(tmp_path_factory) -> Path:
    """Fields of one value that rises by STEP; a corner and the fifth frame were not measured."""
    folder = tmp_path_factory.mktemp("rain")
    (folder / "in").mkdir()
    for number in range(4):
        field = np.full((8, 16, 16), number, np.float32)
        field += STEP * np.arange(8, dtype=np.float32)[:, None, None]
        field[4], field[:, :2, :2] = np.nan, np.nan
        np.save(folder / "in" / f"{number}.npy", field)
    command = ["--dataset", "custom", "--input_dir", str(folder / "in"), "--fps", "8"]
    command += ["--clip_length", "8", "--transform", f"range 0 {HIGH:g}", "--workers", "0"]
    command += ["--output_dir", str(folder / "out"), "--splits", "train=0.5,val=0.5"]
    assert cut(command) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def results(rain, tmp_path_factory) -> Path:
    """Evaluate an untrained model of these fields; return results.json."""
    folder = tmp_path_factory.mktemp("model")
    index = open_shards(str(rain), "train")
    transform = index.transform.as_json()
    source = {"transform": transform.pop("name"), "dtype": "float32", **transform}
    small = factories.settings(sequence_length=8, data=str(rain), source=source)
    config = parse(small | {"sde": {"latent_size": 2, "content_size": 2, "hidden": 8}})
    torch.manual_seed(0)
    save_file(objectives.build_model(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    metrics = "failures,prediction,futures,kid,warping"
    options = ["--model_path", str(folder), "--context", str(CONTEXT), "--samples", "2"]
    output = folder / "results.json"
    assert main([*options, "--metrics", metrics, "--output", str(output)]) == 0
    return output


def near(value: float | None, within: float) -> object:
    return None if value is None else pytest.approx(value, abs=within)


def test_copied_frames_have_the_psnr_of_their_distance_in_the_range(results):
    """k frames after the last given one, -20 log10(k STEP / HIGH), also beyond HIGH."""
    scores = json.loads(results.read_text())["prediction"]["psnr"]["copy_last_frame"]
    want = [-20 * np.log10(k * STEP / HIGH) for k in range(1, 6)]
    want[4 - CONTEXT] = None  # nothing was measured
    assert scores["by_frame"] == [near(value, 1e-3) for value in want]


def test_futures_and_persistence_are_in_the_source_units(results):
    forecasts = json.loads(results.read_text())["futures"]["forecasts"]
    rmse = forecasts["persistence"]["channels"][0]["rmse"]["by_lead"]
    want = [STEP, None, 3 * STEP, 4 * STEP, 5 * STEP]
    assert rmse == [near(value, 1e-2) for value in want]
    model = forecasts["model"]["channels"][0]["rmse"]["by_lead"]
    assert [value is None for value in model] == [False, True, False, False, False]


def test_a_model_that_stands_still_is_as_far_as_the_field_rises(results):
    scores = json.loads(results.read_text())["failures"]["psnr"]
    assert scores["still_3"]["mean"] == pytest.approx(-20 * np.log10(3 * STEP / HIGH), abs=1e-3)


def test_networks_and_flow_take_masked_fields(results):
    scores = json.loads(results.read_text())
    assert all(np.isfinite(seed["distance"]["mean"]) for seed in scores["kid"]["seeds"])
    assert scores["warping"]["real"]["mean"] is not None


def test_pictures_for_the_page_show_what_was_not_measured(results):
    with np.load(results.with_suffix(".npz")) as pictures:
        real = pictures["real"]
        assert real.dtype == np.uint8
        assert set(np.unique(real[:, 4])) == set(CHEQUER)
        assert pictures["generated"].dtype == pictures["samples"].dtype == np.uint8
