"""The law along tracks: known walks give their own diffusion, exponent and drift back."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from sdevid.errors import UserError
from sdevid.evaluate.law import films, present
from sdevid.evaluate.law.estimators import CELLS, film_sums, law_of, over_seeds
from sdevid.evaluate.law.tracking import TrackpyTracker, build_tracker

SIDE = (64, 64)


def tracks_of(rng, step, drift=(0.0, 0.0), tracks=12, frames=60, noise=0.0):
    """Tracks of Brownian motion from the middle of the frame, `step` pixels a frame and axis."""
    moves = rng.normal(drift, step, (tracks, frames, 2))
    positions = 32 + np.cumsum(moves, axis=1) + rng.normal(0, noise, moves.shape)
    return list(positions)


def law(films, interval=0.5, sources=None):
    sums = [film_sums(tracks, [len(tracks)] * 60, SIDE, 5) for tracks in films]
    return law_of(sums, sources or [f"film {k}" for k in range(len(films))], interval)


def test_brownian_tracks_have_diffusion_and_exponent_one():
    rng = np.random.default_rng(0)
    estimate = law([tracks_of(rng, 1.5, drift=(0.4, -0.2)) for _ in range(20)])
    want = 1.5**2 / 2 / 0.5  # sd^2 / (2 interval)
    low, high = estimate["diffusion"]["interval"]
    assert low < want < high
    assert estimate["diffusion"]["mean"] == pytest.approx(want, rel=0.05)
    assert estimate["exponent"]["mean"] == pytest.approx(1, abs=0.03)
    assert estimate["drift"]["x"]["mean"] == pytest.approx(0.8, abs=0.1)
    assert estimate["drift"]["y"]["mean"] == pytest.approx(-0.4, abs=0.1)
    assert estimate["displacement"][0]["lag"] == 0.5


def test_tracking_error_does_not_reach_the_slope():
    rng = np.random.default_rng(1)
    estimate = law([tracks_of(rng, 1.0, noise=1.0) for _ in range(30)], interval=1.0)
    assert estimate["diffusion"]["mean"] == pytest.approx(0.5, rel=0.1)
    assert estimate["displacement"][0]["mean"] > 1.8 * 2  # 2 from the walk, 4 from the error


def test_ballistic_tracks_have_exponent_two():
    rng = np.random.default_rng(2)
    angles = rng.uniform(0, 2 * np.pi, (20, 16))
    heading = np.stack([np.cos(angles), np.sin(angles)], -1)
    estimate = law([[32 + np.outer(np.arange(12), v) for v in film] for film in heading])
    assert estimate["exponent"]["mean"] == pytest.approx(2, abs=0.02)


def test_intervals_are_over_source_videos():
    rng = np.random.default_rng(3)
    several = [tracks_of(rng, step) for step in [1.0] * 10 + [2.0] * 10]
    by_film = law(several)["diffusion"]["standard_error"]
    by_source = law(several, sources=["a"] * 10 + ["b"] * 10)["diffusion"]["standard_error"]
    assert by_source > 2 * by_film


def test_fields_show_where_diffusion_is_larger():
    rng = np.random.default_rng(4)
    left = [track + np.array([-16, 0]) for track in tracks_of(rng, 0.1)]
    right = [track + np.array([16, 0]) for track in tracks_of(rng, 0.4)]
    field = np.array(law([left + right])["fields"]["diffusion"], float)
    assert field.shape == (CELLS, CELLS)
    known = np.isfinite(field)
    assert known[:, : CELLS // 2].any()
    assert np.nanmax(field[:, : CELLS // 2]) < np.nanmin(field[:, CELLS // 2 :])
    assert not known[0].any()  # nobody was there


def test_seeds_are_told_apart():
    entry = over_seeds([1.0, 2.0, 3.0])
    assert entry["mean"] == 2
    assert entry["standard_error"] == pytest.approx(1 / np.sqrt(3))
    assert entry["seeds"] == [1.0, 2.0, 3.0]
    assert over_seeds([1.0])["standard_error"] is None


class Walker:
    """A model whose futures are dark spots that walk, as the real films' do."""

    def __init__(self, fps, step):
        self.config = SimpleNamespace(fps=fps, model_copy=lambda update: SimpleNamespace(**update))
        self.step = step  # pixels a root of a second


def film(rng, frames, fps, step, start=(32.0, 32.0)):
    positions = np.array(start) + np.cumsum(rng.normal(0, step * fps**-0.5, (frames, 2)), axis=0)
    rows, columns = np.mgrid[:64, :64]
    frames = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y in positions]
    return (230 - 200 * np.stack(frames)).astype(np.uint8)[..., None]


@pytest.fixture
def walking(monkeypatch):
    rng = np.random.default_rng(5)
    entry = SimpleNamespace(fps=8.0, num_frames=41, source="")
    index = SimpleNamespace(
        clips=[SimpleNamespace(**vars(entry) | {"source": f"{k}"}) for k in range(6)]
    )
    real = np.stack([film(rng, 41, 8.0, 1.0) for _ in index.clips])

    def fixed(_index, _config, part):
        return SimpleNamespace(values=real[part.start : part.stop])

    def continued(model, arguments, frames, fps, seed, title):
        del arguments, title
        source = np.random.default_rng(seed)
        return np.stack([film(source, frames, fps, model.step) for _ in index.clips])

    monkeypatch.setattr(films.stream, "fixed", fixed)
    monkeypatch.setattr(films, "continued", continued)
    return index


@pytest.mark.parametrize("step", [1.0, 1.6])
def test_generated_film_is_tracked_as_real_film_is(walking, step, tmp_path):
    tracker = build_tracker("centroids", 0.09, 5.0, "dark")
    model = Walker(fps=4.0, step=step)
    laws = films.compare(model, walking, range(6), tracker, 3, (4.0, 8.0, 16.0), (0, 1))
    assert [entry["fps"] for entry in laws] == [4.0, 8.0, 16.0]
    assert laws[2]["real"] is None  # the films are at 8
    for entry in laws:
        seeds = entry["generated"]["over_seeds"]["diffusion"]
        assert seeds["mean"] == pytest.approx(step**2 / 2, rel=0.6)
        assert entry["generated"]["count"]["first"] == 1
    assert laws[0]["real"]["diffusion"]["mean"] == pytest.approx(0.5, rel=0.6)
    present.picture(laws, tmp_path / "law.png")
    assert (tmp_path / "law.png").stat().st_size > 5_000
    text = present.text(laws, "dark")
    assert "the films are at no multiple of this rate" in text
    assert "over seeds D" in text


def test_tracker_that_finds_nothing_says_so(walking):
    tracker = build_tracker("centroids", 0.9, 5.0, "dark")
    with pytest.raises(UserError, match="finds nothing that lasts 5 frames in 6 real clips"):
        films.compare(Walker(4.0, 1.0), walking, range(6), tracker, 3, (4.0,), (0,))


def test_missing_trackpy_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"sdevid\[trackpy\]"):
        build_tracker("trackpy", 0.1, 5.0, "dark")


@pytest.mark.filterwarnings("ignore")  # trackpy's use of pandas
@pytest.mark.extra
def test_trackpy_follows_the_same_spot():
    shown = film(np.random.default_rng(6), 12, 4.0, 1.0)[..., 0] / 255
    (track,), counts = TrackpyTracker().follow(shown)
    (ours,), _ = build_tracker("centroids", 0.09, 5.0, "dark").follow(shown)
    np.testing.assert_allclose(track, ours, atol=0.5)
    assert counts == [1] * 12
