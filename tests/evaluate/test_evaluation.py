"""The whole of `evaluate` on a small model and drawn video."""

import json
import subprocess
import sys
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdevid.config import dump, parse
from sdevid.evaluate.__main__ import main
from sdevid.objectives import build_model

ROOT = Path(__file__).resolve().parents[2]
SMALL = factories.settings(
    sequence_length=8, sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)
FEW = ["--num_clips", "8", "--samples", "4", "--rollouts", "6", "--rollout_frames", "12"]


def draw(folder, dataset, *options):
    tool = [sys.executable, "tools/make_shards.py", "--dataset", dataset, "--workers", "1"]
    shape = ["--num_clips", "40", "--frame_size", "16", "--clip_length", "8", *options]
    splits = ["--splits", "train=0.5,val=0.5", "--output_dir", str(folder)]
    subprocess.run([*tool, *shape, *splits], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("shards"), "double-well", "--vertical", "ou")


@pytest.fixture(scope="module")
def model(tmp_path_factory, shards):
    return untrained(tmp_path_factory.mktemp("model"), shards)


def untrained(folder, shards, **settings):
    config = parse(SMALL | {"data": str(shards)} | settings)
    torch.manual_seed(0)
    save_file(build_model(config).state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump(config))
    return folder


def evaluate(model, output, *arguments):
    options = ["--model_path", str(model), "--output", str(output), "--context", "3", *FEW]
    assert main([*options, *arguments]) == 0
    return json.loads(output.read_text())


def test_results_hold_every_part_and_repeat_with_the_seed(model, tmp_path):
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
    leads = psnr["mean_of_samples"]["lead_by_frame"]
    best = max(psnr[name]["by_frame"][0] for name in ("copy_last_frame", "mean_frame"))
    assert leads[0]["mean"] == pytest.approx(psnr["mean_of_samples"]["by_frame"][0] - best)
    assert all(lead["interval"][0] <= lead["mean"] <= lead["interval"][1] for lead in leads)
    assert set(first["prediction"]["ssim"]) == set(psnr)
    assert first["elbo"]["elbo"]["interval"][0] < first["elbo"]["elbo"]["mean"]
    assert set(first["prediction"]["energy_score"]) == {"samples", "copy_last_frame", "mean_frame"}
    assert set(first["motion"]) == {"x", "y"}
    assert set(first["rates"]) == {"0.5", "2", "4"}
    assert first["rates"]["4"]["y"]["fps"] == 32
    assert first["simulator_futures"]["members"] == 64
    assert first["simulator_futures"]["axes"]["x"]["simulator"]["crps"]["mean"] > 0
    again = evaluate(model, tmp_path / "b.json", "--metrics", "prediction,motion,simulator_futures")
    for measure in ("prediction", "motion", "simulator_futures"):
        assert first[measure] == again[measure]


def test_futures_stand_beside_baselines_in_source_units(model, tmp_path):
    asked = ["--metrics", "futures", "--values", "linear:0:1:share", "--thresholds", "0.5,2"]
    scores = evaluate(model, tmp_path / "a.json", *asked, "--spectra")["futures"]
    assert (scores["clips"], scores["members"], scores["unit"]) == (8, 4, "share")
    ours = {"model", "persistence", "training_mean", "climatology", "random_past_clip"}
    assert ours <= set(scores["forecasts"])
    assert scores["left_out"]["threshold 2"].startswith("no value reaches it; the largest is")
    model_scores = scores["forecasts"]["model"]["channels"][0]
    assert set(model_scores["crps"]) == {"1", "2", "4", "8"}
    assert len(model_scores["coverage"]["0.9"]["by_lead"]) == 5
    assert sum(model_scores["ranks"]["share"]) == pytest.approx(1)
    # an untrained model is grey: worse than clips of the training split
    past = scores["forecasts"]["random_past_clip"]["channels"][0]
    first = scores["forecasts"]["random_past_clip"]["model_crps_share_by_lead"][0][0]
    ratio = model_scores["crps"]["1"]["by_lead"][0] / past["crps"]["1"]["by_lead"][0]
    assert first["mean"] == pytest.approx(ratio)
    assert first["interval"][0] < ratio < first["interval"][1]
    assert model_scores["crps"]["1"]["mean"] > past["crps"]["1"]["mean"]
    assert past["thresholds"]["0.5"]["fss"]["16"]["mean"] > 0
    table = (tmp_path / "a.txt").read_text()
    assert "fair CRPS of means over 4 x 4 pixels, share" in table
    assert "no value reaches it" in table


@pytest.mark.parametrize("kind", ["sde_matching", "follmer"])
def test_every_kind_is_evaluated_with_or_without_a_bound(shards, tmp_path, capsys, kind):
    (tmp_path / "model").mkdir()
    other = untrained(tmp_path / "model", shards, model_type=kind)
    results = evaluate(
        other, tmp_path / "a.json", "--metrics", "bound,prediction,simulator_futures"
    )
    text = capsys.readouterr().out
    assert results["prediction"]["psnr"]["mean_of_samples"]["mean"] > 0
    if kind == "sde_matching":
        assert results["elbo"]["elbo"]["standard_error"] > 0
        return
    assert results["elbo"] is None
    assert "not defined: model_type follmer has no bound" in text
    refused = ["--model_path", str(other), "--context", "3", "--metrics", "iwae"]
    assert main(refused) == 2
    assert "--metrics names iwae, but model_type" in capsys.readouterr().err


def test_baselines_are_those_of_the_clips(model, shards, tmp_path):
    from sdevid.data.shards import open_shards

    results = evaluate(model, tmp_path / "a.json", "--num_clips", "20", "--metrics", "prediction")
    index = open_shards(shards, "val")
    video = np.stack([index.read(i).video for i in range(len(index))]) / 255
    error = ((video[:, 3:] - video[:, 2:3]) ** 2).mean(axis=(1, 2, 3, 4))
    want = (-10 * np.log10(np.maximum(error, 1e-10))).mean()
    assert results["prediction"]["psnr"]["copy_last_frame"]["mean"] == pytest.approx(want)


class Judge(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean([2, 3, 4]), x.flatten(2).std(2)], dim=1)


class Distance(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean([1, 2, 3])


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    torch.jit.script(Judge()).save(str(folder / "i3d.pt"))
    torch.jit.script(Distance()).save(str(folder / "lpips.pt"))
    return ["--fvd_i3d", str(folder / "i3d.pt"), "--lpips", str(folder / "lpips.pt")]


@pytest.mark.parametrize(("context", "frames"), [("none", 8), ("in", 8), ("out", 5)])
def test_sets_are_told_with_their_protocol_and_floor(model, networks, tmp_path, context, frames):
    asked = ["--metrics", "fvd,kid", "--set_context", context, "--set_size", "12"]
    estimate = evaluate(model, tmp_path / "a.json", *networks, *asked)
    for name in ("fvd", "kid"):
        text = estimate[name]
        assert (text["videos"], text["frames"], text["context"]) == (12, frames, context)
    # an untrained model is grey: far from real, which is near to real
    assert estimate["fvd"]["distance"]["mean"] > 3 * estimate["fvd"]["floor"]["mean"] >= 0
    for one in estimate["kid"]["seeds"]:
        assert one["distance"]["mean"] > 3 * abs(one["floor"]["mean"])
    table = (tmp_path / "a.txt").read_text()
    assert f"KID on random 3-D features: 12 videos of {frames} frames" in table
    assert "real against real" in table


def test_flow_and_perceptual_distance_are_measured(model, networks, tmp_path):
    estimate = evaluate(model, tmp_path / "a.json", *networks, "--metrics", "warping,lpips")
    assert estimate["warping"]["real"]["mean"] > 0
    assert (
        estimate["lpips"]["one_sample"]["mean"] > estimate["lpips"]["copy_last_frame"]["mean"] > 0
    )


def test_pictures_for_the_page_lie_beside_the_results(model, tmp_path):
    evaluate(model, tmp_path / "a.json", "--metrics", "prediction")
    held = np.load(tmp_path / "a.npz")
    assert held["generated"].shape == (6, 8, 16, 16, 1)
    assert held["real"].shape == (16, 8, 16, 16, 1)
    assert held["samples"].shape == (3, 4, 5, 16, 16, 1)
    assert np.array_equal(held["clips"][0], held["real"][0])


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "axis"), [("pendulum", "angle"), ("gbm-radius", "radius")])
def test_other_scenes_are_measured_along_their_own_axis(tmp_path, dataset, axis):
    shards = draw(tmp_path / "shards", dataset)
    (tmp_path / "model").mkdir()
    model = untrained(tmp_path / "model", shards)
    estimate = evaluate(model, tmp_path / "a.json", "--metrics", "motion,simulator_futures,iwae")
    assert set(estimate["motion"]) == {axis}
    text = estimate["motion"][axis]
    assert text["ratio_to_truth"]["real"]["squared_diffusion"] == pytest.approx(1, abs=0.4)
    assert text["statistics"]["real"]["lost"]["mean"] == 0
    assert "elbo" not in estimate
    assert estimate["iwae"]["gain"]["mean"] > 0
    assert "IWAE bound, 64 draws" in (tmp_path / "a.txt").read_text()


def test_true_state_of_a_cut_clip_is_where_its_video_shows(shards):
    from sdevid.data import stream
    from sdevid.data.shards import open_shards
    from sdevid.evaluate.sde_recovery.scene_tracker import scene_tracker

    config = parse(SMALL | {"data": str(shards), "sequence_length": 5})
    index = open_shards(shards, "val")
    tracker = scene_tracker(index.dataset["truth"])
    firsts = [stream.first_frame(index, config, number) for number in range(len(index))]
    assert len(set(firsts)) > 1
    paths = tracker.paths(stream.fixed(index, config, range(len(index))).video.numpy())
    for number, first in enumerate(firsts):
        state = tracker.scene.state(index.read(number).meta, first + 2)
        assert paths["x"][number, 2] == pytest.approx(state[0], abs=0.05)


def test_simulator_is_calibrated_on_its_own_clips(model, tmp_path):
    """Twenty clips of five frames ahead, 64 futures of the true SDE from each true state."""
    arguments = ["--metrics", "simulator_futures", "--num_clips", "20"]
    scores = evaluate(model, tmp_path / "a.json", *arguments)["simulator_futures"]
    for axis in ("x", "y"):
        simulator = scores["axes"][axis]["simulator"]
        ratio = simulator["spread_skill"]
        assert abs(ratio["mean"] - 1) < 4 * ratio["standard_error"]
        assert simulator["last_frame"]["p_value"] > 1e-3
    assert scores["energy_score"]["simulator"]["mean"] < scores["energy_score"]["model"]["mean"]


def test_clips_are_read_and_predicted_at_half_their_rate(model, tmp_path):
    """Every second frame: the law per second stays, and true states stand at the right frames."""
    arguments = ["--metrics", "motion,simulator_futures,prediction", "--num_clips", "20"]
    scores = evaluate(model, tmp_path / "a.json", *arguments, "--fps", "4", "--context", "2")
    assert (scores["protocol"]["fps"], scores["protocol"]["frames"]) == (4.0, 4)
    assert len(scores["prediction"]["psnr"]["one_sample"]["by_frame"]) == 2
    for axis in ("x", "y"):
        simulator = scores["simulator_futures"]["axes"][axis]["simulator"]["spread_skill"]
        assert abs(simulator["mean"] - 1) < 4 * simulator["standard_error"]
        ratio = scores["motion"][axis]["ratio_to_truth"]["real"]["squared_diffusion"]
        assert 0.6 < ratio < 1.6  # of 60 steps; a wrong interval would give a half or 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--fps", "3"], "--fps is 3, but the clips of"),
        (
            ["--fps", "16"],
            "at 8 frames a second, and every so-many-th frame is taken",
        ),
        (["--interval", "1s"], "hold one frame at that rate; give a larger --fps"),
        (["--context", "3", "--metrics", "fidelity"], "--metrics names 'fidelity'"),
        (["--context", "3", "--metrics", "fvd"], "no network is given for it by --fvd_i3d"),
        (["--context", "3", "--fvd_i3d", "/nowhere.pt"], "--fvd_i3d /nowhere.pt is no file"),
        (["--context", "3", "--lpips", __file__], "is no TorchScript"),
        (["--set_size", "1"], "--set_size is 1"),
        (["--draws", "0"], "--draws is 0"),
        (["--context", "4"], "--context is 4"),
        (["--samples", "0"], "--samples is 0"),
        (["--context", "3", "--values", "dB:1"], "--values is 'dB:1', which is no scale"),
        (["--context", "3", "--metrics", "futures", "--samples", "1"], "an ensemble of one"),
        (["--num_clips", "0"], "--num_clips is 0"),
        (["--split", "test"], "cut the shards anew with --splits train=0.9,test=0.1"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--output", "/nowhere/results.json"], "/nowhere"),
        (["--model_path", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_settings_end_with_a_word_and_code_2(model, tmp_path, capsys, arguments, named):
    options = ["--model_path", str(model), "--output", str(tmp_path / "a.json")]
    assert main([*options, *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/a.json", "does not exist"), ("", "is a folder"), ("a.npz", "give .json")],
)
def test_output_that_cannot_be_is_named_before_the_model_is_read(name, message, tmp_path, capsys):
    assert main(["--model_path", "nowhere", "--output", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
