"""Shards with latents, runs on them, and what becomes of a run that was: from cut to export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdevid import export, objectives
from sdevid.autoencoder.folder import identity
from sdevid.autoencoder.frozen import FrozenAutoencoder, new_kl
from sdevid.autoencoder.training import psnr
from sdevid.checkpoint import Progress
from sdevid.cli import shards as command
from sdevid.cli import train_autoencoder
from sdevid.config import parse
from sdevid.data import stream
from sdevid.data.cut import check_command
from sdevid.data.index import ClipTable
from sdevid.data.latents import LATENT
from sdevid.data.shards import open_shards
from sdevid.errors import UserError
from sdevid.evaluate.metrics.prediction import predict
from sdevid.evaluate.metrics.training_mean import training_mean
from sdevid.evaluate.statistics.quality import decibels
from sdevid.train.frozen_pictures import open_pictures
from sdevid.train.loop import train

SHAPE = ["--dataset", "double-well", "--workers", "0", "--num_clips", "12", "--frame_size", "16"]


def cut(folder: Path, *arguments: object) -> int:
    """Drawn grey clips of 8 frames, by the command that a user gives."""
    options = [*SHAPE, "--clip_length", "8", "--store", "npy", "--output_dir", folder, *arguments]
    return command.main([str(one) for one in options])


@pytest.fixture(scope="module")
def latent_shards(kl, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("latents")
    assert cut(folder, "--autoencoder", kl) == 0
    return folder


@pytest.fixture
def make_run(make_config, latent_shards, kl, world) -> Callable[..., Path]:
    """Train on latents in this process; the run's folder."""

    def make(data: Path = latent_shards, **settings):
        encoder = {"frozen": str(kl)} | settings.pop("encoder", {})
        config = make_config(data=str(data), max_clips=8, encoder=encoder, **settings)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        assert train(config, open_shards(data, "train"), world, Progress()) == "done"
        return config.run_dir

    return make


def test_shards_hold_the_latents_of_their_frames(latent_shards, kl):
    index, frozen = open_shards(latent_shards, "val"), FrozenAutoencoder(kl)
    pixels = index.read(0).video
    encoded = open_shards(latent_shards, "val")
    encoded.encoded = True
    result = encoded.read(0).video
    assert (result.dtype, result.shape) == (np.float16, (8, 4, 4, 6))
    assert np.array_equal(result, frozen.stored(pixels))
    later = np.empty((3, 4, 4, 6), np.float16)
    encoded.read_into(0, 5, later)
    assert np.array_equal(later, result[5:])
    metadata = json.loads((latent_shards / "dataset.json").read_text())["autoencoder"]
    assert metadata == identity(kl)
    assert check_command.main([str(latent_shards)]) == 0


def test_run_on_stored_latents_reads_no_pixels(make_config, latent_shards, kl, world):
    config = make_config(data=str(latent_shards), encoder={"frozen": str(kl)})
    index = open_shards(latent_shards, "train")
    filled, output = open_pictures(config, index, world)
    assert "latents 3 x 4 x 4; latents from the shards" in output
    assert filled.encoder.frozen_fingerprint == identity(kl)["fingerprint"]
    (batch,) = next(stream.steps(index, filled, 0, 1, 0))
    assert (batch.video.dtype, tuple(batch.video.shape)) == (torch.float16, (4, 6, 4, 4, 6))
    objective = objectives.build(filled)
    objective(batch.video, batch.ticks, batch.serial, 1.0)["loss"].backward()
    assert "_autoencoder" not in vars(objective.model.pictures)


def test_frames_are_encoded_on_the_way_where_shards_hold_none(make_run, shards, capsys):
    make_run(data=shards)
    assert "encoded on cpu as training goes on" in capsys.readouterr().out


def test_export_names_the_autoencoder_or_takes_it_along(make_run, kl, tmp_path):
    run = make_run()
    bare, whole = tmp_path / "bare", tmp_path / "whole"
    export.export(run, bare)
    config = (bare / "config.yaml").read_text()
    assert identity(kl)["fingerprint"] in config
    assert str(kl.parent) not in config
    assert sorted(path.name for path in bare.iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
    ]
    with pytest.raises(UserError, match="name its new place"):
        export.load(bare)
    shutil.copytree(kl, bare / kl.name)
    export.export(run, whole, with_autoencoder=True)
    models = [export.load(folder)[0] for folder in (run, bare, whole.rename(tmp_path / "moved"))]
    ticks = models[0].config.frame_ticks(3).expand(1, -1)
    videos = [m.sample(ticks, seed=0, serial=torch.zeros(1, dtype=torch.int64)) for m in models]
    assert torch.equal(videos[0], videos[1])
    assert torch.equal(videos[0], videos[2])


def test_model_of_pixels_has_no_autoencoder_to_take_along(make_config, train_here, tmp_path):
    config = make_config(max_clips=4)
    train_here(config)
    with pytest.raises(UserError, match="draws pixels"):
        export.export(config.run_dir, tmp_path / "out", with_autoencoder=True)


def test_ceiling_of_a_prediction_is_the_autoencoders_own(make_run, latent_shards, kl):
    model, config = export.load(make_run())
    index = open_shards(latent_shards, "val")
    mean = training_mean(index, config, None)
    scores, _ = predict(model, index, config, range(1), 2, 2, 0, mean, None)
    batch = stream.fixed(index, config, range(1))
    frames = batch.video[0, 2:].permute(0, 3, 1, 2) / 255
    frozen = FrozenAutoencoder(kl)
    error = (frozen.decode(frozen.encode(frames).mean) - frames).square().mean((1, 2, 3))
    result = scores["psnr"]["autoencoder"].as_json()["mean"]
    assert result == pytest.approx(decibels(error.mean().numpy()), rel=1e-4)


def test_another_autoencoder_than_the_shards_is_named(make_config, latent_shards, kl, world):
    other = shutil.copytree(kl, kl.parent / "other")
    metadata = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(metadata | {"scaling_factor": 0.5}))
    config = make_config(data=str(latent_shards), encoder={"frozen": str(other)})
    with pytest.raises(UserError, match="made by another") as error:
        open_pictures(config, open_shards(latent_shards, "train"), world)
    for one in (other, kl):
        assert identity(one)["fingerprint"] in str(error.value)


@pytest.mark.parametrize("described", [True, False])
def test_latents_beside_pixels_in_one_data_set_are_named(
    described, make_config, latent_shards, shards, kl, world
):
    folder = latent_shards if described else shards
    index, other = (open_shards(one, "train") for one in (folder, latent_shards))
    with_, without = other.clips[0], open_shards(shards, "train").clips[0]
    assert LATENT in with_.members
    assert LATENT not in without.members
    index.clips = ClipTable.of("here", [with_, without])
    config = make_config(encoder={"frozen": str(kl)})
    with pytest.raises(UserError, match="mix latents and pixels") as error:
        open_pictures(config, index, world)
    assert (without if described else with_).key in str(error.value)


def test_run_on_pixels_leaves_the_latents(make_config, latent_shards, world):
    index = open_shards(latent_shards, "train")
    config, output = open_pictures(make_config(data=str(latent_shards)), index, world)
    assert output == "pictures pixels; the latents in the shards are not read"
    (batch,) = next(stream.steps(index, config, 0, 1, 0))
    assert batch.video.dtype == torch.uint8


def test_cut_whose_frames_are_none_for_it_is_refused(taef2, tmp_path, capsys):
    assert cut(tmp_path / "out", "--autoencoder", taef2) == 2
    assert "is for 3 channels, but the frames have 1" in capsys.readouterr().err


def test_autoencoder_learns_the_users_own_frames(shards, tmp_path, capsys):
    small = {"latent_channels": 2, "factor": 4, "width": 8, "frames": 320, "batch_size": 8}
    arguments = [f"--{name}={value}" for name, value in small.items()]
    folder = tmp_path / "mine"
    options = ["--data", str(shards), "--output_dir", str(folder), *arguments]
    assert train_autoencoder.main([*options, "--adversarial_weight=0.01"]) == 0
    assert "on split val" in capsys.readouterr().out
    index = open_shards(shards, "val")
    frames = torch.cat([torch.from_numpy(index.read(i).video[:4]) for i in range(2)])
    frames = frames.permute(0, 3, 1, 2) / 255
    frozen = FrozenAutoencoder(folder)
    latents = frozen.encode(frames).mean
    assert latents.shape == (8, 2, 4, 4)
    assert 0.3 < latents.std() < 3
    torch.manual_seed(0)
    new_kl(1, 2, (8, 16, 32), 1).save_pretrained(tmp_path / "untrained")
    untrained = FrozenAutoencoder(tmp_path / "untrained")
    before, after = psnr(untrained, frames), psnr(frozen, frames)
    assert after > before + 6
    with pytest.raises(UserError, match="holds an autoencoder already"):
        train_autoencoder.main(options)


UNFIT = [
    (["--factor=3"], "--factor is 3"),
    (["--factor=32"], "no multiple of it"),
    (["--width=12"], "--width is 12"),
    (["--frames=0"], "--frames is 0"),
    (["--kl_weight=-1"], "--kl_weight is -1"),
]


@pytest.mark.parametrize(("arguments", "message"), UNFIT, ids=[message for _, message in UNFIT])
def test_options_that_fit_no_autoencoder_are_named(arguments, message, shards, tmp_path):
    with pytest.raises(UserError, match=message):
        train_autoencoder.main(
            ["--data", str(shards), "--output_dir", str(tmp_path / "a"), *arguments]
        )
    assert not (tmp_path / "a").exists()


def test_frozen_folder_is_a_path_from_anywhere():
    from sdevid.train.run import with_absolute_paths

    config = with_absolute_paths(parse({"encoder": {"frozen": "weights/mine"}}))
    assert config.encoder.frozen == str(Path("weights/mine").absolute())
