"""The tracker finds drawn blobs where they are and reads the diffusion that moved them."""

import numpy as np
import pytest

from sdevid.data.brownian import Blob, BlobFilm, draw
from sdevid.data.spec import CutSpec
from sdevid.evaluate.blobs import Tracker, tracked_law

FPS = 6.0


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[np.ndarray]]:
    spec = CutSpec(64, FPS, 25, 25, "crop", "npy")
    clips = list(BlobFilm().clips(np.random.default_rng(5), 24, spec))
    return (
        np.stack([video[..., 0] / 255 for video, _ in clips]),
        [np.array(output["places"]) for _, output in clips],
    )


def test_blobs_are_found_where_they_are():
    positions = np.array([[[12.3, 40.7], [45.2, 20.1]]])
    frame = draw(positions, [Blob(3.5, 0.25), Blob(4.5, 0.22)], 64, np.random.default_rng(0))
    estimate = Tracker().find(frame[0, ..., 0] / 255)
    assert sorted(map(tuple, estimate)) == [pytest.approx(tuple(p), abs=0.3) for p in positions[0]]


def test_places_between_pixels_are_not_drawn_to_a_pixel():
    between = np.linspace(-1, 1, 81)
    positions = np.stack([30 + between, 31 + 0.7 * between], axis=-1)[:, None]
    for radius in (2.5, 3.5, 4.5):
        film = draw(positions, [Blob(radius, 0.25)], 64, np.random.default_rng(0))[..., 0] / 255
        found = np.array([Tracker().find(frame)[0] for frame in film])
        assert (found - positions[:, 0]).std(0) == pytest.approx((0, 0), abs=0.12)


def test_bright_blobs_are_found_as_dark_ones():
    positions = np.array([[[12.3, 40.7]]])
    frame = draw(positions, [Blob(3.5, 0.25)], 64, np.random.default_rng(0))[0, ..., 0] / 255
    bright = Tracker(sign="bright").find(1 - frame)
    assert bright == pytest.approx(Tracker().find(frame), abs=1e-6)
    assert len(Tracker(sign="bright").find(frame)) == 0


def test_missing_pixels_show_no_blob_and_hide_no_other():
    positions = np.array([[[12.3, 40.7], [45.2, 20.1]]])
    frame = draw(positions, [Blob(3.5, 0.25), Blob(4.5, 0.22)], 64, np.random.default_rng(0))
    masked = frame[0, ..., 0] / 255
    masked[:, 32:] = np.nan
    (estimate,) = Tracker().find(masked)
    assert tuple(estimate) == pytest.approx((12.3, 40.7), abs=0.3)
    assert len(Tracker().find(np.full((64, 64), np.nan))) == 0


def test_tracked_diffusion_is_the_truths_within_its_interval(drawn):
    films, positions = drawn
    law = tracked_law(films, FPS)
    steps = np.concatenate([np.diff(p, axis=0).reshape(-1, 2) for p in positions])
    simulated = np.square(steps).sum(1).mean() * FPS / 4
    assert law.diffusion == pytest.approx(simulated, rel=0.15)  # walls and crossings lower it
    assert law.low < simulated < 1.15 * law.high
    assert len(law.displacement) == 6
    assert np.mean(law.counts) == pytest.approx(np.mean([p.shape[1] for p in positions]), rel=0.25)


def test_still_film_has_no_diffusion():
    positions = np.repeat(np.array([[[20.0, 20.0], [40.0, 44.0]]]), 12, axis=0)
    film = draw(positions, [Blob(4, 0.25), Blob(4, 0.25)], 64, np.random.default_rng(0))
    law = tracked_law(film[None, ..., 0] / 255, FPS)
    assert abs(law.diffusion) < 0.02
    assert law.counts == (2.0,) * 12


def test_common_motion_is_drift_and_not_diffusion():
    along = np.arange(12)[:, None, None] * np.array([1.2, -0.6])
    positions = np.array([[[20.0, 40.0], [36.0, 52.0]]]) + along
    film = draw(positions, [Blob(4, 0.25), Blob(4, 0.25)], 64, np.random.default_rng(0))
    law = tracked_law(film[None, ..., 0] / 255, FPS)
    assert law.drift == pytest.approx((1.2 * FPS, -0.6 * FPS), abs=0.3)
    assert abs(law.diffusion) < 0.05


def test_empty_film_has_no_law():
    assert tracked_law(np.full((2, 8, 64, 64), 0.75), FPS) is None
