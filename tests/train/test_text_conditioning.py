"""What a run is told in words, where that comes from, and what it says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import sdevid
from sdevid import objectives
from sdevid.checkpoint import Progress
from sdevid.config import parse
from sdevid.data.shards import open_shards
from sdevid.data.stream import fixed
from sdevid.errors import UserError
from sdevid.export import export
from sdevid.models import text
from sdevid.train.loop import train
from sdevid.train.text_conditioning import open_text

ROOT = Path(__file__).resolve().parents[2]
BYTES = {"encoder": "bytes", "layers": 1, "length": 12}


def test_captions_are_read_by_default():
    assert parse({}).text.encoder == "bytes"


def test_clips_without_words_train_unconditionally(make_config, train_here, index, capsys):
    config = make_config(text=BYTES, max_clips=8)
    assert train_here(config) == "done"
    assert f"no clip of {config.data} has a caption or label" in capsys.readouterr().out
    torch.manual_seed(0)
    objective = objectives.build(config)
    batch = fixed(index, config, range(4))
    inputs = text.text_inputs(text.tokenizer(config), batch, torch.device("cpu"))
    loss = objective(batch.video, batch.ticks, batch.serial, 1.0, **inputs)["loss"]
    loss.backward()
    changed = {
        name
        for name, weight in objective.model.text.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    assert changed == {"null"}


def test_run_without_text_says_so(make_config, train_here, capsys):
    assert train_here(make_config(max_clips=4)) == "done"
    assert "text none\n" in capsys.readouterr().out


def cut(folder: Path, *arguments: object) -> Path:
    """Moving digits, whose captions name them, by the command that a user gives."""
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "moving-digits", "--workers", "0"]
    shape = ["--num_clips", "24", "--frame_size", "16", "--clip_length", "6", "--num_digits", "1"]
    options = [*tool, *shape, "--output_dir", folder, *arguments]
    done = subprocess.run(
        list(map(str, options)), cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def teller(t5, tmp_path_factory) -> Path:
    """A T5 that knows the words of the captions."""
    folder: Path = shutil.copytree(t5, tmp_path_factory.mktemp("encoders") / "t5")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for word, digit in zip(("left", "right", "up", "down"), "0123", strict=True):
        tokenizer["model"]["vocab"][digit] = tokenizer["model"]["vocab"].pop(word)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module")
def with_embeddings(teller, tmp_path_factory) -> Path:
    return cut(tmp_path_factory.mktemp("digits") / "t5", "--text_encoder", teller)


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Path:
    return cut(tmp_path_factory.mktemp("digits") / "none")


def losses(config, world) -> list[float]:
    config.run_dir.mkdir(parents=True)
    assert train(config, open_shards(config.data, "train"), world, Progress()) == "done"
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_stored_embeddings_train_as_those_computed(
    make_config, world, with_embeddings, without, teller, tmp_path, capsys, monkeypatch
):
    settings = {"max_clips": 20, "batch_size": 4, "log_every": 4}

    def run(name, data, encoder):
        text_settings = {"encoder": str(encoder), "drop": 0.3}
        return losses(make_config(name, data=str(data), text=text_settings, **settings), world)

    meanwhile = run("meanwhile", without, teller)
    message = capsys.readouterr().out
    assert f"text {teller}: captions, and labels" in message
    assert "encoded on cpu as training goes on, since the shards hold none" in message
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(teller / "config.json", bare)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert run("stored", with_embeddings, bare) == meanwhile
    message = capsys.readouterr().out
    assert "embeddings from the shards (made by the same config; no weights or tokenizer" in message
    assert run("bytes", with_embeddings, "bytes") != meanwhile
    assert "the embeddings in the shards are not read" in capsys.readouterr().out


def test_embeddings_by_another_encoder_are_refused(
    make_config, world, with_embeddings, teller, clip, tmp_path
):
    index = open_shards(with_embeddings, "train")

    def fault(encoder, **more):
        text_settings = {"encoder": str(encoder), **more}
        with pytest.raises(UserError) as caught:
            open_text(make_config(data=str(with_embeddings), text=text_settings), index, world)
        return str(caught.value)

    message = fault(clip)
    assert f"text.encoder is {clip} (clip, 16 wide" in message
    assert f"{with_embeddings} were made by another (t5, 16 wide" in message
    assert "length 128 there, 64 here" in fault(teller, length=64)
    other = shutil.copytree(teller, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 64
    (other / "model.safetensors").write_bytes(weights)
    assert ": weights " in fault(other)
    assert not index.embedded


def test_embeddings_are_withheld_as_captions_are(make_config, world, with_embeddings, teller):
    results = {}
    for drop in (0.0, 1.0):
        settings = {"encoder": str(teller), "drop": drop}
        config = make_config(data=str(with_embeddings), text=settings)
        index = open_shards(with_embeddings, "train")
        read, _ = open_text(config, index, world)
        batch = fixed(index, config, range(4))
        torch.manual_seed(0)
        objective = objectives.build(config)
        inputs = text.text_inputs(read, batch, world.device)
        assert inputs["mask"].any(1).all()
        blank = text.text_inputs(read, blanked(batch), world.device)
        for name, each in (("told", inputs), ("blank", blank)):
            loss = objective(batch.video, batch.ticks, batch.serial, 1.0, **each)["loss"]
            results[name, drop] = float(loss.detach())
    assert results["told", 1.0] == results["blank", 1.0] == results["blank", 0.0]
    assert results["told", 0.0] != results["blank", 0.0]


def blanked(batch):
    return type(batch)(batch.video, batch.ticks, batch.serial, batch.keys, ("",) * len(batch.keys))


def test_prompts_go_through_the_frozen_encoder_of_the_run(
    make_config, world, with_embeddings, teller, tmp_path
):
    encoder = shutil.copytree(teller, tmp_path / "encoder")
    text_settings = {"encoder": str(encoder), "drop": 0.0}
    config = make_config(
        data=str(with_embeddings), text=text_settings, max_clips=8, learning_rate=0.02
    )
    losses(config, world)
    model = sdevid.VideoSDE.from_pretrained(config.run_dir)
    videos = {
        prompt: model.sample(prompt=prompt, num_frames=3)
        for prompt in ("the digit 0", "the digit 3", "the digit 0 ")
    }
    assert np.array_equal(videos["the digit 0"], videos["the digit 0 "])
    assert not np.array_equal(videos["the digit 0"], videos["the digit 3"])
    away = model.sample(
        prompt="the digit 0", negative_prompt="the digit 3", guidance_scale=3, num_frames=3
    )
    assert not np.array_equal(away, videos["the digit 0"])
    (encoder / "model.safetensors").unlink()
    again = sdevid.VideoSDE.from_pretrained(config.run_dir)
    assert again.sample(num_frames=3).shape == (1, 3, 16, 16, 1)  # nothing is to be read
    with pytest.raises(UserError, match="holds no weights"):
        again.sample(prompt="the digit 0")
    shutil.rmtree(encoder)
    with pytest.raises(UserError, match="put the folder back, or export the model"):
        sdevid.VideoSDE.from_pretrained(config.run_dir)
    export(config.run_dir, tmp_path / "exported")
    path = tmp_path / "exported/config.yaml"
    settings = yaml.safe_load(path.read_text())
    assert settings["text"]["encoder"] == encoder.name  # an export names no path of its site
    settings["text"]["encoder"] = str(teller)
    path.write_text(yaml.safe_dump(settings))
    loaded = sdevid.VideoSDE.from_pretrained(tmp_path / "exported")
    assert np.array_equal(loaded.sample(prompt="the digit 3", num_frames=3), videos["the digit 3"])
