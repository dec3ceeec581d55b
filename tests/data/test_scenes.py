"""The pendulum and the breathing disc: their laws, their drawing, and what is followed in them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdevid.data.drawn import disc_artist, known_scene
from sdevid.data.pendulum import Pendulum, Swing
from sdevid.data.radius import GeometricBrownian, Pulse
from sdevid.data.synthetic import DoubleWell, Motion, OrnsteinUhlenbeck
from sdevid.evaluate.sde_recovery.scene_tracker import scene_tracker

PATHS, TIMES = 8000, np.arange(13) / 8
SCENES = [Swing(), Pulse(), Motion(DoubleWell(), OrnsteinUhlenbeck())]


def test_pendulum_is_stationary_with_equipartition():
    sde = Pendulum()
    path = sde.simulate(np.random.default_rng(0), PATHS, TIMES)
    heat = sde.sigma**2 / (2 * sde.gamma)
    for frame in (0, 6, 12):
        angle, v = path[:, frame].T
        # v is Gaussian: its variance has relative error sqrt(2/n); symplectic steps add 1e-3
        assert v.var() == pytest.approx(heat, rel=4 * np.sqrt(2 / PATHS) + 2e-3)
        error = 4 * np.std(angle**2) / np.sqrt(PATHS)
        assert angle.var() == pytest.approx(sde.stationary_variance(), abs=error)
        assert abs(np.corrcoef(angle, v)[0, 1]) < 4 / np.sqrt(PATHS)


def test_small_cold_swing_has_its_period():
    sde = Pendulum(omega=3.0, gamma=1e-6, sigma=1e-6)
    times = np.linspace(0, 2 * np.pi / 3, 33)
    path = sde.simulate(np.random.default_rng(1), 1, times, start=np.array([[0.05, 0.0]]))[0]
    np.testing.assert_allclose(path[:, 0], 0.05 * np.cos(3 * times), atol=5e-4)


def test_short_velocity_steps_show_force_friction_and_noise():
    sde, dt = Pendulum(), 1e-3
    path = sde.simulate(np.random.default_rng(2), 100_000, np.array([0, dt]))
    angle, v = path[:, 0].T
    step = path[:, 1, 1] - v
    design = np.stack([-np.sin(angle), -v], axis=1)
    result, *_ = np.linalg.lstsq(design, step / dt, rcond=None)
    error = sde.sigma / np.sqrt(dt) / np.sqrt((design**2).sum(0))
    assert abs(result[0] - sde.omega**2) < 4 * error[0]
    assert abs(result[1] - sde.gamma) < 4 * error[1]
    assert step.var() / dt == pytest.approx(sde.sigma**2, rel=0.03)


def test_radius_stays_in_its_range_with_an_even_logarithm():
    sde = GeometricBrownian()
    path = sde.simulate(np.random.default_rng(3), PATHS, TIMES)
    assert path.min() >= sde.low
    assert path.max() <= sde.high
    for frame in (0, 12):
        spread = 4 * np.std((path[:, frame] - sde.mean) ** 2) / np.sqrt(PATHS)
        assert path[:, frame].var() == pytest.approx(sde.stationary_variance(), abs=spread)
        share = np.log(path[:, frame] / sde.low) / np.log(sde.high / sde.low)
        count = np.histogram(share, 10, (0, 1))[0]
        assert ((count - PATHS / 10) ** 2).sum() / (PATHS / 10) < 30  # chi-square, 9 degrees
    assert (path[:, 0] <= sde.middle).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(PATHS))


def test_short_steps_of_the_radius_show_drift_and_diffusion():
    sde, dt = GeometricBrownian(), 1e-3
    path = sde.simulate(np.random.default_rng(4), 400_000, np.array([0, dt]))
    x, step = path[:, 0], path[:, 1] - path[:, 0]
    inside = (x > 0.5) & (x < 1.3)  # far from where it is reflected
    relative = step[inside] / x[inside]
    assert relative.var() / dt == pytest.approx(sde.sigma**2, rel=0.02)
    error = relative.std() / np.sqrt(inside.sum()) / dt
    assert abs(relative.mean() / dt - sde.sigma**2 / 2) < 4 * error


@pytest.mark.parametrize("scene", SCENES, ids=["pendulum", "radius", "disc"])
@pytest.mark.parametrize("size", [32, 64])
def test_tracker_of_a_drawn_scene_finds_its_motion(scene, size):
    states = scene.simulate(np.random.default_rng(5), 20, TIMES)
    watcher = scene_tracker(json.loads(json.dumps(scene.truth())))
    assert watcher.scene == scene
    result = watcher.paths(scene.draw(states, size))
    seen, pixel = scene.seen(states), 4.4 / size
    inside = (np.abs(states) < 2.0).all(axis=-1)  # a disc that leaves the frame is cut
    for i, name in enumerate(scene.axes):
        error = np.abs(result[name] - seen[..., i])[inside]
        assert error.max() < 0.15 * pixel
        assert error.mean() < 0.05 * pixel


@pytest.mark.parametrize("scene", SCENES, ids=["pendulum", "radius", "disc"])
def test_state_comes_back_from_what_a_clip_says(scene):
    states = scene.simulate(np.random.default_rng(6), 1, TIMES)[0]
    metadata = json.loads(json.dumps(scene.metadata(states)))
    np.testing.assert_allclose(scene.state(metadata, 5), states[5], atol=1e-6)


@pytest.mark.parametrize("scene", SCENES, ids=["pendulum", "radius", "disc"])
def test_start_is_kept_and_its_futures_part(scene):
    first = scene.simulate(np.random.default_rng(7), 1, TIMES)[0, -1]
    paths = scene.simulate(np.random.default_rng(8), 50, TIMES, np.repeat(first[None], 50, 0))
    np.testing.assert_allclose(paths[:, 0], np.repeat(first[None], 50, 0), rtol=1e-12)
    assert paths[:, 1:, 0].std(axis=0).min() > 0


def test_each_data_set_has_its_scene():
    for dataset, kind in (("pendulum", Swing), ("gbm-radius", Pulse), ("ou", Motion)):
        artist = disc_artist(dataset, "none")
        assert isinstance(artist.scene, kind)
        assert known_scene(artist.truth()) == artist.scene
