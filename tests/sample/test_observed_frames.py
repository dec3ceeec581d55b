"""Prompts, key frames, final frames and solvers on the command line; what is wrong with them."""

import json
import sys
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from PIL import Image

import sdevid
from sdevid.errors import UserError
from sdevid.sample.__main__ import main

SMALL = factories.settings(
    sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1},
    follmer={"steps": 4},
)
WHOLE = {
    "observation": {"max_context": 3, "ends_fraction": 0.2, "keyframes_fraction": 0.2},
    "text": {"encoder": "bytes", "layers": 1},
}
KINDS = ["latent_sde", "sde_matching", "follmer"]


def save_model(folder: Path, **settings) -> Path:
    return factories.save_model(folder, SMALL | settings)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    result = {kind: save_model(folder / kind, model_type=kind, **WHOLE) for kind in KINDS}
    second = save_model(folder / "second", sde=SMALL["sde"] | {"order": 2})
    return result | {"plain": save_model(folder / "plain"), "second order": second}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for level in (40, 80, 120):
        Image.new("L", (16, 16), level).save(folder / f"{level}.png")
    Image.new("L", (20, 16), 10).save(folder / "wide.png")
    return folder


def sample(model, output, *arguments):
    options = ["--model_path", str(model), "--output_dir", str(output), "--num_samples", "2"]
    assert main([*options, *arguments]) == 0
    held = np.load(output / "sample_00000.npz")
    return held["video"], json.loads((output / "sample_00000.json").read_text()), held["places"]


@pytest.mark.parametrize("kind", KINDS)
def test_observed_frames_stand_at_their_indices(models, pictures, tmp_path, kind):
    ends = ["--initial_frames", str(pictures / "40.png"), "--final_frames"]
    keys = ["--keyframes", f"3:{pictures / '80.png'}", "--num_frames", "8"]
    video, summary, indices = sample(
        models[kind], tmp_path, *ends, str(pictures / "120.png"), *keys
    )
    assert video.shape == (8, 16, 16, 1)
    assert [int(video[at, 0, 0, 0]) for at in (0, 3, 7)] == [40, 80, 120]
    assert indices.tolist() == summary["observed_places"] == [0, 3, 7]
    assert summary["keyframes"] == [f"3:{pictures / '80.png'}"]
    assert summary["num_initial_frames"] == 1
    other, *_ = sample(models[kind], tmp_path / "other", *ends, str(pictures / "80.png"), *keys)
    assert not np.array_equal(video[4:7], other[4:7])  # what comes bears on what is before it


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_guidance_reach_every_kind(models, tmp_path, kind):
    first = sample(models[kind], tmp_path / "a", "--prompt", "left", "--prompt", "right")
    record = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert [one["prompt"] for one in record["samples"]] == ["left"] * 2 + ["right"] * 2
    assert first[1]["prompt"] == "left"
    assert first[1]["guidance_nats"] == 0
    guided = sample(
        models[kind],
        tmp_path / "b",
        "--prompt",
        "left",
        "--guidance_scale",
        "4",
        "--negative_prompt",
        "blurred",
    )
    assert guided[1]["guidance_nats"] > 0
    assert guided[1]["negative_prompt"] == "blurred"


@pytest.mark.parametrize(
    ("solver", "more"), [("heun", []), ("srk", []), ("torchsde/srk", ["--adaptive"])]
)
def test_solver_can_be_chosen(models, tmp_path, solver, more):
    video, record, _ = sample(models["latent_sde"], tmp_path / "a", "--solver", solver, *more)
    assert record["solver"] == solver
    plain, *_ = sample(models["latent_sde"], tmp_path / "b")
    assert not np.array_equal(video, plain)


@pytest.mark.parametrize(
    ("kind", "arguments", "named"),
    [
        ("plain", ["--prompt", "a"], "--prompt is given, but this model was trained without text"),
        ("plain", ["--guidance_scale", "2"], "--guidance_scale is given, but"),
        ("plain", ["--final_frames", "40.png"], "observation.ends_fraction is 0"),
        ("plain", ["--keyframes", "2:40.png"], "observation.keyframes_fraction is 0"),
        ("plain", ["--bridge_diffusion", "follmer"], "model_type is latent_sde"),
        ("follmer", ["--solver", "heun"], "takes euler_maruyama alone"),
        ("second order", ["--solver", "heun"], "sde.order 2 has no noise on its positions"),
        ("latent_sde", ["--guidance_scale", "-1"], "--guidance_scale is -1.0"),
        ("latent_sde", ["--negative_prompt", "a"], "does nothing at --guidance_scale 1"),
        ("latent_sde", ["--solver", "heun", "--temperature", "0"], "needs euler_maruyama"),
        ("latent_sde", ["--solver", "heun", "--adaptive"], "give --solver torchsde/srk"),
        ("latent_sde", ["--tolerance", "1"], "add --adaptive"),
        (
            "latent_sde",
            ["--solver", "torchsde/srk", "--adaptive", "--tolerance", "0"],
            "must be above 0",
        ),
        ("latent_sde", ["--solver", "srk", "--steps_per_frame", "3"], "must be whole ones"),
        ("latent_sde", ["--keyframes", "six.png"], "must read INDEX:PATH"),
        ("latent_sde", ["--keyframes", "6:40.png"], "indices are 0 to 5"),
        ("latent_sde", ["--keyframes", "2:40.png", "2:80.png"], "frame 2 is given twice"),
        ("latent_sde", ["--keyframes", "1:40.png", "2:wide.png"], "give frames of one size"),
        ("latent_sde", ["--keyframes", "1:none.png"], "--keyframes none.png does not exist"),
        ("latent_sde", ["--keyframes", "0:40.png", "--num_frames", "1"], "all of them are given"),
    ],
)
def test_misfit_observed_frames_are_refused_before_any_work(
    models, pictures, tmp_path, monkeypatch, capsys, kind, arguments, named
):
    monkeypatch.chdir(pictures)
    where = ["--model_path", str(models[kind]), "--output_dir", str(tmp_path / "out")]
    assert main([*where, *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_notebook_gets_what_the_command_line_writes(models, tmp_path):
    model = sdevid.VideoSDE.from_pretrained(models["latent_sde"], device="cpu")
    options = {"seed": 5, "prompt": "left", "guidance_scale": 2.0, "num_frames": 5}
    output = ["--seed", "5", "--prompt", "left", "--guidance_scale", "2", "--num_frames", "5"]
    torch.set_num_threads(1)
    video = model.sample(2, **options)
    written, *_ = sample(models["latent_sde"], tmp_path / "a", *output)
    assert np.array_equal(video[0], written)
    frames = np.full((2, 16, 16, 1), 80, np.uint8)
    predicted = model.predict(frames, num_samples=3, num_frames=7)
    assert predicted.shape == (3, 7, 16, 16, 1)
    assert (predicted[:, :2] == 80).all()
    filled = model.fill(frames, [0, 4], num_frames=5)
    assert (filled[:, [0, 4]] == 80).all()


def test_wrong_arrays_and_options_are_told(models):
    model = sdevid.VideoSDE.from_pretrained(models["plain"], device="cpu")
    frames = np.zeros((2, 16, 16, 1), np.uint8)
    for call, named in (
        (lambda: model.sample(fps=0.0), "--fps is 0.0"),
        (lambda: model.sample(frame_rate=8), "frame_rate is no option"),
        (lambda: model.sample(prompt="a"), "trained without text"),
        (lambda: model.predict(frames.astype(float)), "frames are float64"),
        (lambda: model.predict(np.zeros((4, 16, 16, 1), np.uint8)), "takes at most 3"),
        (lambda: model.predict(frames, num_frames=2), "at least one must be generated"),
        (lambda: model.fill(frames, [0, 3]), "go on from initial frames alone"),
        (lambda: model.fill(frames, [0]), "2 frames are given for 1 indices"),
        (lambda: sdevid.VideoSDE.from_pretrained("/nowhere"), "/nowhere does not exist"),
    ):
        with pytest.raises(UserError, match=named):
            call()


def test_pushing_uploads_weights_and_config(models, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    seen = {}

    class Api:
        def create_repo(self, repo_id, **options):
            seen["repo"] = repo_id, options

        def upload_folder(self, repo_id, folder_path):
            seen["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(hub, "HfApi", Api)
    model = sdevid.VideoSDE.from_pretrained(models["plain"], device="cpu")
    assert model.push_to_hub("me/discs").endswith("me/discs/commit/1")
    assert seen["files"] == ["README.md", "config.yaml", "model.safetensors"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="not installed"):
        model.push_to_hub("me/discs")


MEASURED = {"source": {"dtype": "float32", "transform": "range", "low": 0.0, "high": 1.0}}
FILM = np.random.default_rng(0).random((3, 16, 16, 1)).astype(np.float32)


def lacking(*indices: int) -> np.ndarray:
    film = FILM.copy()
    film[list(indices)] = np.nan
    return film


def test_last_frame_without_values_is_generated_and_tells_the_model_nothing(tmp_path):
    """The future is that of the frames before it, and not of a grey frame in its place."""
    model = sdevid.VideoSDE.from_pretrained(save_model(tmp_path / "m", **MEASURED), device="cpu")
    video = model.predict(lacking(2), num_frames=6, seed=1)
    assert np.isfinite(video).all()
    np.testing.assert_array_equal(video, model.predict(FILM[:2], num_frames=6, seed=1))
    grey = lacking(2)
    grey[2] = 0.5
    assert np.abs(model.predict(grey, num_frames=6, seed=1)[:, 3:] - video[:, 3:]).max() > 1e-3


def test_inner_frame_without_values_is_left_out_with_its_time(tmp_path):
    """A model of initial frames alone goes on from the frames around it and leaves it empty."""
    model = sdevid.VideoSDE.from_pretrained(save_model(tmp_path / "m", **MEASURED), device="cpu")
    video = model.predict(lacking(1), num_frames=6, seed=1)
    assert np.isnan(video[:, 1]).all()
    ticks = model.config.frame_ticks(6)[None]
    around = torch.from_numpy(FILM[[0, 2]]).permute(0, 3, 1, 2)[None]
    want = model.model.sample(
        ticks[:, 3:],
        seed=1,
        serial=torch.zeros(1, dtype=torch.int64),
        context=around,
        context_ticks=ticks[:, [0, 2]],
    )
    np.testing.assert_array_equal(video[0, 3:], want[0].movedim(1, -1).numpy())


def test_a_model_of_frames_ahead_fills_in_what_was_not_observed(tmp_path):
    folder = save_model(tmp_path / "m", **MEASURED, **WHOLE)
    model = sdevid.VideoSDE.from_pretrained(folder, device="cpu")
    video = model.fill(lacking(1), [0, 2, 5], num_frames=6, seed=1)
    assert np.isfinite(video).all()
    np.testing.assert_array_equal(video, model.fill(FILM[[0, 2]], [0, 5], num_frames=6, seed=1))


def test_initial_frames_without_a_value_are_refused_by_name(tmp_path, capsys):
    model = save_model(tmp_path / "m", **MEASURED)
    np.save(tmp_path / "film.npy", lacking(0, 1, 2))
    where = ["--model_path", str(model), "--output_dir", str(tmp_path / "out")]
    assert main([*where, "--initial_frames", str(tmp_path / "film.npy")]) == 2
    assert "--initial_frames hold 3 frame(s), but no value of any was" in capsys.readouterr().err
    np.save(tmp_path / "film.npy", lacking(2))
    assert main([*where, "--initial_frames", str(tmp_path / "film.npy"), "--num_samples", "1"]) == 0
    assert "frame 2 is not observed" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["observed_places"] == [0, 1]
