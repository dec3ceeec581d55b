"""Drawn blobs move by the law that is said, stay who they are, and are where they are drawn."""

import json

import numpy as np
import pytest
from scipy.stats import kstest

from sdevid.data import brownian
from sdevid.data.brownian import DIFFUSION, SIDE, WALL, Blob, BlobFilm, draw
from sdevid.data.cut.options import parse
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

TIMES = np.arange(9) / 6


def spec(frame_size: int = SIDE) -> CutSpec:
    return CutSpec(frame_size, 6.0, 9, 9, "crop", "npy")


@pytest.mark.parametrize("motion", brownian.MOTIONS)
def test_short_steps_have_the_stated_diffusion(motion):
    film, dt = BlobFilm(motion), 1 / 60
    paths = film.positions(np.random.default_rng(0), 20_000, np.array([0.0, dt]))
    inside = (np.abs(paths[0] - SIDE / 2) < SIDE / 2 - 2 * WALL).all(1)
    steps = (paths[1] - paths[0])[inside]
    result = steps.var(0) / (2 * dt)
    stated = film.diffusion(SIDE)
    assert result == pytest.approx([stated["x"], stated["y"]], rel=0.04)


def test_blobs_diffuse_as_asked_and_stand_still_at_0():
    still, slow = (BlobFilm(brownian_diffusion=d) for d in (0.0, 1.6))
    times = np.array([0.0, 1.0])
    rng = np.random.default_rng(4)
    start, end = slow.positions(rng, 20_000, times)
    inside = (np.abs(start - SIDE / 2) < SIDE / 4).all(1)
    assert (end - start)[inside].var(0) == pytest.approx([3.2, 3.2], rel=0.05)
    assert slow.truth()["particles"]["diffusion"] == {"x": 1.6, "y": 1.6}
    assert np.ptp(still.positions(rng, 5, times), axis=0).max() == 0


def test_walls_reflect_and_the_law_stays_uniform_between_them():
    times = np.array([0.0, 400.0])
    last = BlobFilm().positions(np.random.default_rng(1), 4_000, times)[-1]
    assert WALL <= last.min() <= last.max() <= SIDE - WALL
    assert kstest(last[:, 0], "uniform", (WALL, SIDE - 2 * WALL)).pvalue > 0.01


def test_blob_is_drawn_at_its_place():
    blob = Blob(radius=4.0, contrast=0.25)
    positions = np.array([[[20.3, 41.8]]])
    frame = draw(positions, [blob], SIDE, np.random.default_rng(0))[0, ..., 0] / 255
    dark = np.clip(brownian.GROUND - frame - 0.1, 0, None)
    pixel = np.arange(SIDE)
    assert (dark.sum(0) @ pixel / dark.sum(), dark.sum(1) @ pixel / dark.sum()) == pytest.approx(
        (20.3, 41.8), abs=0.1
    )


def test_clip_keeps_identities_and_scales_with_the_frame():
    small = next(BlobFilm().clips(np.random.default_rng(3), 1, spec()))
    large = next(BlobFilm().clips(np.random.default_rng(3), 1, spec(2 * SIDE)))
    for (video, output), scale in ((small, 1), (large, 2)):
        assert video.shape == (9, scale * SIDE, scale * SIDE, 1)
        positions = np.array(output["places"])
        assert positions.shape == (9, len(output["blobs"]), 2)
        assert brownian.COUNT[0] <= positions.shape[1] <= brownian.COUNT[1]
        assert json.loads(json.dumps(output)) == output
    assert np.allclose(2 * np.array(small[1]["places"]), large[1]["places"], atol=1e-3)
    stated = BlobFilm().diffusion(2 * SIDE)["x"]
    assert stated == pytest.approx(4 * DIFFUSION)


def test_motion_is_refused_for_another_data_set(tmp_path):
    arguments = ["--dataset", "ou", "--motion", "brownian", "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match="--motion is for brownian, not for ou"):
        parse(arguments)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (("--blob_diffusion", "-1"), "--blob_diffusion is -1, but must be 0 or more"),
        (("--blob_diffusion", "inf"), "--blob_diffusion is inf, but must be 0 or more"),
        (("--blob_diffusion", "nan"), "--blob_diffusion is nan, but must be 0 or more"),
        (("--motion", "ou", "--blob_diffusion", "1"), "is of --motion brownian; that of ou has"),
    ],
)
def test_diffusion_that_is_none_is_refused(given, fault, tmp_path):
    with pytest.raises(UserError, match=fault):
        parse(["--dataset", "brownian", *given, "--output_dir", str(tmp_path)])
