"""Frames that are not square: cut whole or to a shape, trained on, and sampled."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from sdevid import frame_size, objectives
from sdevid.cli.shards import main as cut
from sdevid.config import parse
from sdevid.data.shards import open_shards
from sdevid.data.stream import check_clips, steps
from sdevid.errors import UserError
from sdevid.sample.__main__ import main as sample

WIDE, HIGH = 48, 32


def config(**changes: object):
    return parse(factories.settings(frame_size=f"{WIDE}x{HIGH}", **changes))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Ramps along x, of 48 x 32 pixels."""
    (tmp_path / "in").mkdir()
    ramp = np.broadcast_to(np.arange(WIDE, dtype=np.uint8), (6, HIGH, WIDE))
    for number in range(3):
        np.save(tmp_path / "in" / f"{number}.npy", ramp + number)
    given = ["--dataset", "custom", "--input_dir", str(tmp_path / "in"), "--clip_length", "6"]
    given += ["--output_dir", str(tmp_path / "out"), "--frame_size", f"{WIDE}x{HIGH}"]
    given += ["--splits", "train=1", "--fps", "8", "--workers", "0"]
    assert cut(given) == 0
    return tmp_path / "out"


def test_oblong_frames_are_cut_and_read_whole(shards):
    index = open_shards(shards, "train")
    assert index.clips[0].shape == (6, HIGH, WIDE, 1)
    assert np.array_equal(
        index.read(0).video[0, 0, :, 0] - index.read(0).video[0, 0, 0, 0], range(WIDE)
    )
    (batch,) = next(steps(index, config(batch_size=3), 0, 1, 0))
    assert batch.video.shape == (3, 6, HIGH, WIDE, 1)


def test_frames_turned_over_are_named(shards):
    turned = parse(factories.settings(frame_size=f"{HIGH}x{WIDE}"))
    with pytest.raises(UserError, match=rf"frame_size is {HIGH}x{WIDE}, but .*{WIDE}x{HIGH}"):
        check_clips(open_shards(shards, "train"), turned)


@pytest.mark.parametrize(
    "sde", [factories.VECTOR, factories.MAP, factories.MAP | {"start": "birth"}]
)
@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_models_take_oblong_frames(kind, sde):
    torch.manual_seed(0)
    made = config(model_type=kind, sde=sde)
    objective = objectives.build(made)
    video = torch.rand(2, 6, 1, HIGH, WIDE).movedim(2, -1).mul(255).byte()
    serial, ticks = torch.arange(2), made.frame_ticks(6).expand(2, -1).contiguous()
    out = objective(video, ticks, serial, 1.0)
    out["loss"].backward()
    assert out["loss"].isfinite()
    assert objective.model.sample(ticks, seed=0, serial=serial).shape == (2, 6, 1, HIGH, WIDE)


def test_oblong_samples_have_their_shape(tmp_path):
    model = factories.save_model(
        tmp_path / "model", factories.settings(frame_size="48x32", sde=factories.MAP)
    )
    given = ["--model_path", str(model), "--output_dir", str(tmp_path / "out")]
    assert sample([*given, "--num_samples", "1"]) == 0
    assert np.load(tmp_path / "out" / "sample_00000.npz")["video"].shape == (6, HIGH, WIDE, 1)


@pytest.mark.parametrize("given", ["0", "64x", "x64", "64x0", "-3x4", "sixty", "64x64x3"])
def test_a_size_out_of_form_is_named(given):
    with pytest.raises(ValueError, match="must be a side or WIDTHxHEIGHT"):
        frame_size.parse(given)


def test_a_map_that_does_not_fit_both_sides_is_named():
    with pytest.raises(UserError, match=r"frame_width\) a multiple of that power"):
        parse(factories.settings(frame_size="50x32"))


def test_particles_refuse_oblong_frames():
    with pytest.raises(UserError, match=r"particles, which takes square frames alone.* 48x32"):
        config(sde={"latent": "particles"})


def test_a_square_size_as_text_is_the_number():
    assert parse(factories.settings(frame_size="32x32")) == parse(factories.settings(frame_size=32))
