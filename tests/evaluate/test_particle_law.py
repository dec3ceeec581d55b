"""The law read off a model of particles, its calibration, and the films beside it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from sdevid import config as configs
from sdevid import console, export, objectives
from sdevid.cli import law as command
from sdevid.cli import shards as cutting
from sdevid.data import brownian, stream
from sdevid.data.brownian import Blob
from sdevid.data.folder import Access
from sdevid.data.shards import open_shards
from sdevid.errors import UserError
from sdevid.evaluate.blobs import Tracker
from sdevid.evaluate.particles import film_law, model_law
from sdevid.evaluate.particles.model_law import LAGS, Followed, calibrate


def settings(data: Path, **changed: object) -> dict[str, object]:
    return {
        "frame_size": 64,
        "channels": 1,
        "fps": 6,
        "sequence_length": 10,
        "data": str(data),
        "encoder": {"map_size": 8},
        "sde": {"latent": "particles", "noise": "carried", "steps_per_frame": 1},
        "particles": {"count": 64, "hidden": 8, "diffusion_start": 1.0, "length_start": 5.0},
        "observation": {"max_context": 1},
        "text": {"encoder": "none"},
    } | changed


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brownian")
    arguments = "--dataset brownian --num_clips 12 --fps 6 --clip_length 18 --workers 0"
    assert cutting.main([*arguments.split(), "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def untrained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose law is known: its diffusion is the one it starts with."""
    folder = tmp_path_factory.mktemp("model")
    config = configs.parse(settings(shards))
    model = objectives.build_model(config)
    with torch.no_grad():
        model.reader.cells[-1].bias[2] = 1.0  # every particle is present
    export.write(model, config, folder)
    return folder


def test_law_of_known_weights_is_read_in_pixels_and_seconds(untrained, shards):
    model, config = export.load(untrained)
    objective = objectives.build(config, model)
    index = open_shards(str(shards), "train", Access.of(config))
    law = model_law.model_law(objective, index, range(8), Tracker())
    assert law.diffusion.value == pytest.approx(0.5 * 6, rel=1e-4)  # g = 1 pixel/sqrt(frame)
    assert law.diffusion_spread == pytest.approx((3.0, 3.0, 3.0), rel=1e-4)
    assert [axis.value for axis in law.drift] == pytest.approx([0, 0], abs=1e-5)
    assert law.length == pytest.approx(5.0)
    assert law.posterior_slope.low < law.posterior_slope.value < law.posterior_slope.high
    assert law.factor == pytest.approx(law.posterior_slope.value / 3.0, rel=1e-4)
    assert (law.clips, law.windows) == (8, 8)


def test_walls_are_told_in_pixels(shards):
    config = configs.parse(settings(shards, particles={"count": 64, "walls": True}))
    model = objectives.build_model(config)
    with torch.no_grad():
        model.reader.cells[-1].bias[2] = 1.0
        model.law.walls.reach[0] = 0.5  # low along x and y, half sides from the middle
    index = open_shards(str(shards), "train", Access.of(config))
    law = model_law.model_law(objectives.build(config, model), index, range(2), Tracker())
    middle = (config.frame_size - 1) / 2
    for low, high in law.walls:
        assert (low, high) == pytest.approx((middle / 2, 2 * middle))
    assert f"walls                  x {middle / 2:.1f} to {2 * middle:.1f}, y" in command.law_text(
        law, 6
    )


def test_every_window_of_a_clip_is_read(untrained, shards):
    model, config = export.load(untrained)
    short = config.model_copy(update={"sequence_length": 6})
    index = open_shards(str(shards), "train", Access.of(config))
    windows = model_law.windows(index, short, 1)
    whole = stream.fixed(index, config.model_copy(update={"sequence_length": 18}), range(1, 2))
    assert windows.video.shape[:2] == (3, 6)
    assert_close(windows.video.flatten(0, 1), whole.video[0])
    assert_close(windows.ticks, whole.ticks[:, :6].expand(3, -1))
    law = model_law.model_law(objectives.build(short, model), index, range(4), Tracker())
    assert (law.clips, law.windows) == (4, 12)


def test_moments_of_a_white_walk_give_its_diffusion():
    draw = np.random.default_rng(0)
    positions = np.cumsum(draw.normal(0, 0.8, (4_000, 6, 2)), axis=0)
    sums = model_law.displacement_moments(positions, np.zeros(2))
    assert model_law.diffusion_by_slope(sums, fps=6.0) == pytest.approx(0.8**2 / 2 * 6, rel=0.05)
    assert sums[0, LAGS] / sums[1, LAGS] == pytest.approx(0, abs=0.03)


def test_lagging_path_has_the_right_diffusion_by_the_slope():
    draw = np.random.default_rng(1)
    true = np.cumsum(draw.normal(0, 1.0, (20_000, 4, 2)), axis=0)
    lagging = 0.8 * true[1:] + 0.2 * true[:-1]
    sums = model_law.displacement_moments(lagging, np.zeros(2))
    one_step = sums[0, 0] / sums[1, 0] / 4
    assert one_step == pytest.approx(0.5 * (0.8**2 + 0.2**2), rel=0.04)
    assert model_law.diffusion_by_slope(sums, fps=1.0) == pytest.approx(0.5, rel=0.05)
    assert sums[0, LAGS] / sums[1, LAGS] == pytest.approx(0.16 / 0.68, abs=0.03)


def test_mean_motion_of_few_particles_leaves_their_diffusion():
    draw = np.random.default_rng(3)
    config = configs.parse(settings(Path("data")))
    clips = []
    for _ in range(2_000):
        steps = draw.normal((0.3, -0.2), 1.0, (10, 3, 2))
        clips.append([Followed(np.cumsum(steps, axis=0), np.full(3, 0.5), np.zeros((9, 3, 2)))])
    law = model_law.law_of_clips(clips, config, None, seed=0)
    assert law.posterior_slope.value == pytest.approx(0.5 * 6, rel=0.08)
    assert law.step_correlation == pytest.approx(0, abs=0.02)
    for axis, truth in zip(law.posterior_drift, (0.3 * 6, -0.2 * 6), strict=True):
        assert axis.low < truth < axis.high


def test_pull_is_the_slope_of_the_drift_and_of_the_steps():
    draw = np.random.default_rng(4)
    config = configs.parse(settings(Path("data")))
    clips = []
    for _ in range(400):
        path = [draw.normal(30, 4, (3, 2))]
        for _ in range(9):
            path.append(path[-1] + (30 - path[-1]) * (0.2, 0.1) + draw.normal(0, 2, (3, 2)))
        positions = np.stack(path)
        drift = (30 - positions[:-1]) * (0.3, 0.05)  # a model that errs: 0.2 and 0.1 are true
        clips.append([Followed(positions, np.full(3, 0.5), drift)])
    law = model_law.law_of_clips(clips, config, None, seed=0)
    for axis, truth in zip(law.pull, (-0.3, -0.05), strict=True):
        assert (axis.low, axis.high) == pytest.approx((truth * 6, truth * 6))
    for axis, truth in zip(law.posterior_pull, (-0.2, -0.1), strict=True):
        assert axis.low < truth * 6 < axis.high


def test_law_of_velocities_is_in_seconds():
    config = configs.parse(
        settings(Path("data")) | {"sde": {**settings(Path("data"))["sde"], "order": 2}}
    )
    positions = np.random.default_rng(5).normal(30, 4, (10, 3, 2))
    clips = [[Followed(positions, np.full(3, 0.5), np.full((9, 3, 2), 2.0))]] * 3
    law = model_law.law_of_clips(clips, config, None, seed=0)
    assert law.diffusion.value == pytest.approx(0.5 * 6**3)  # pixel^2/frame^3, 6 frames a second
    assert law.drift[0].value == pytest.approx(2 * 6**2)


def test_still_particles_have_a_diffusion_interval_with_zero():
    draw = np.random.default_rng(2)
    config = configs.parse(settings(Path("data")))
    clips = []
    for _ in range(40):
        positions = 30 + 0.2 * draw.normal(size=(10, 3, 2))  # still, seen with errors
        clips.append([Followed(positions, np.full(3, 0.5), np.zeros((9, 3, 2)))])
    law = model_law.law_of_clips(clips, config, None, seed=0)
    assert law.posterior_slope.low < 0 < law.posterior_slope.high


def test_calibration_sets_the_posteriors_diffusion_and_is_kept(untrained, shards, tmp_path):
    argued = [str(untrained), "--data", str(shards), "--num_clips", "8"]
    argued += ["--calibrate", str(tmp_path / "set")]
    model, config = export.load(untrained)
    objective = objectives.build(config, model)
    index = open_shards(str(shards), "train", Access.of(config))
    law = model_law.model_law(objective, index, range(8), Tracker())
    if law.factor <= 0:
        with pytest.raises(UserError, match="nothing is seen to diffuse"):
            calibrate(model, law)
        return
    assert command.main(argued) == 0
    metadata = json.loads((tmp_path / "set/law.json").read_text())
    again, _ = export.load(tmp_path / "set")
    changed = float((2 * again.law.calibration).exp())
    assert changed == pytest.approx(metadata["calibrated"]["factor"])
    assert changed == pytest.approx(metadata["law"]["factor"], rel=1e-5)
    assert model.notes() == ()
    assert f"g^2 x {changed:.3f}" in again.notes()[0]


def test_refit_of_noise_that_particles_share_is_refused(untrained, shards, tmp_path):
    argued = [str(untrained), "--data", str(shards), "--refit", str(tmp_path / "refitted")]
    with pytest.raises(UserError, match="noise is carried"):
        command.main(argued)


def test_futures_of_known_diffusion_show_it_at_every_rate(untrained, shards):
    model, config = export.load(untrained)
    index = open_shards(str(shards), "train", Access.of(config))
    estimate = film_law.compare(model, index, range(4), Tracker())
    assert [entry.fps for entry in estimate] == [6.0, 3.0]
    assert all(entry.real is not None for entry in estimate)
    assert math.isfinite(estimate[0].real.diffusion)


@pytest.mark.parametrize("film", ["--data", "--films"])
def test_film_of_other_channels_than_the_models_is_named(film, shards, tmp_path):
    folder = tmp_path / "colour"
    config = configs.parse(settings(shards, channels=3))
    export.write(objectives.build_model(config), config, folder)
    grey = configs.parse(settings(shards)).data
    with pytest.raises(
        UserError, match=r"channels is 3, but .* hold frames of 1 .* --channels rgb"
    ):
        command.main([str(folder), "--data", grey, film, str(shards)])


def test_still_film_is_said_not_to_diffuse(untrained, tmp_path, capsys):
    still = tmp_path / "still"
    still.mkdir()
    place = np.array([[[20.0, 20.0], [40.0, 44.0]]])
    for number in range(4):
        draw = np.random.default_rng(number)
        blobs = [Blob(4, 0.25), Blob(4, 0.25)]
        frame = brownian.draw(place + number, blobs, 64, draw)
        np.save(still / f"{number}.npy", np.repeat(frame, 10, axis=0)[..., 0])
    arguments = "--dataset custom --fps 6 --clip_length 10 --workers 0"
    cut = [*arguments.split(), "--transform", "range 0 255", "--input_dir", str(still)]
    cut += ["--splits", "train=1"]
    assert cutting.main([*cut, "--output_dir", str(tmp_path / "data")]) == 0
    assert command.main([str(untrained), "--data", str(tmp_path / "data")]) == 0
    law = json.loads((untrained / "law.json").read_text())["law"]
    assert law["posterior_slope"]["low"] <= 0 <= law["posterior_slope"]["high"]
    assert "nothing is seen to diffuse" in capsys.readouterr().out
    assert command.main([str(untrained), "--data", str(tmp_path / "data"), "--quiet"]) == 0
    console.set_level("info")
    assert capsys.readouterr().out.startswith("nothing is seen to diffuse")  # a warning, alone


def test_film_whose_blobs_are_not_seen_is_named(untrained, shards):
    model, config = export.load(untrained)
    index = open_shards(str(shards), "train", Access.of(config))
    objective = objectives.build(config, model)
    with pytest.raises(UserError, match="bright blob"):
        model_law.model_law(objective, index, range(2), Tracker(sign="bright", threshold=0.5))
