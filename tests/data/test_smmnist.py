"""The three generators of Stochastic Moving MNIST do what is published of them."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.data import smmnist
from sdevid.data.smmnist import DIGIT, SIDE, StochasticDigits, stochastic_digits
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

SPEC = CutSpec(64, 8.0, 40, 40, "crop", "npy")
FRAMES, COURSES = 60, 300


def write_mnist(folder, count=40):
    """Digit i is a flat square of level 5 (i + 1) in the middle of its cell."""
    cells = np.zeros((count, 28, 28), np.uint8)
    cells[:, 6:22, 6:22] = 5 * np.arange(1, count + 1, dtype=np.uint8)[:, None, None]
    header = b"".join(n.to_bytes(4) for n in (2051, count, 28, 28))
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + cells.tobytes())
    header = b"".join(n.to_bytes(4) for n in (2049, count))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + bytes(i % 10 for i in range(count)))
    return folder


@pytest.fixture(scope="module")
def courses():
    return {
        name: [
            getattr(smmnist, name)(np.random.default_rng(seed), FRAMES) for seed in range(COURSES)
        ]
        for name in ("svg", "srvp", "nsf")
    }


@pytest.mark.parametrize("name", ["svg", "srvp", "nsf"])
def test_digits_stay_inside_and_go_straight_between_walls(courses, name):
    room = SIDE - DIGIT[name]
    slack = 1.0 if name == "srvp" else 1e-9  # places are rounded, speeds are not
    for course in courses[name]:
        steps = np.diff(course.corner, axis=0)
        apart = np.abs(np.diff(steps, axis=0)).max(axis=1)
        free = [k for k in range(1, FRAMES - 1) if not {k, k + 1} & set(course.bounced)]
        assert course.corner.min() >= 0
        assert course.corner.max() <= room
        assert (apart[[k - 1 for k in free]] <= 2 * slack).all()
        assert np.abs(steps).max() <= smmnist.FASTEST + slack


def test_svg_puts_a_digit_at_the_wall_and_sends_it_off(courses):
    """Where only one wall is met, it stands at 0 or 31 and next moves 1 to 4 pixels off it."""
    seen = set()
    for course in courses["svg"]:
        for frame in course.bounced:
            if frame + 1 >= FRAMES or frame + 1 in course.bounced:
                continue
            at, step = course.corner[frame], course.corner[frame + 1] - course.corner[frame]
            walls = [axis for axis in (0, 1) if at[axis] in (0, 31)]
            assert walls
            if len(walls) == 1:
                away = 1 if at[walls[0]] == 0 else -1
                assert 1 <= away * step[walls[0]] <= 4
                seen.add((away, abs(step[walls[0]])))
    assert len(seen) == 8


def test_srvp_moves_whole_pixels_and_may_come_to_rest(courses):
    corners = np.stack([course.corner for course in courses["srvp"]])
    assert np.array_equal(corners, np.rint(corners))
    assert {0.0, 36.0} <= set(corners[..., 0].ravel())
    still = (np.diff(corners, axis=1) == 0).all(axis=2)[:, -10:].all(axis=1)
    assert 0 < still.mean() < 0.9
    first = np.diff(corners[:, :2], axis=1)
    # without a wall the first step is even over the 81 velocities: each axis has variance 20/3
    inside = ((corners[:, 0] > 4) & (corners[:, 0] < 32)).all(axis=1)
    drawn = first[inside, 0]
    error = 4 * np.std(drawn**2) / np.sqrt(drawn.size)
    assert np.mean(drawn**2) == pytest.approx(20 / 3, abs=error)


def test_srvp_walks_the_rest_of_a_step_after_the_wall():
    """At 34 with speed 4 it meets 36 half way; the other half goes with the new speed."""

    def anew(_, away):
        return np.array([3.0 * away[0], 1.0])

    start, speed = np.array([34.0, 10.0]), np.array([4.0, 0.0])
    course = smmnist.bounced_path(start, speed, 36, 3, anew)
    np.testing.assert_allclose(course.corner, [[34, 10], [34.5, 10.5], [31.5, 11.5]])
    assert course.bounced == [1]


def test_nsf_keeps_its_speed_and_leaves_walls_evenly(courses):
    angles = []
    for course in courses["nsf"]:
        steps = np.diff(course.corner, axis=0)
        free = [k for k in range(FRAMES - 1) if k + 1 not in course.bounced]
        speed = np.linalg.norm(steps[free], axis=1)
        assert np.ptp(speed) < 1e-9
        assert 1 <= speed[0] <= 4
        for frame in course.bounced:
            if 1 <= frame < FRAMES - 1 and frame + 1 not in course.bounced:
                step = steps[frame]
                if np.abs(course.corner[frame - 1, 1] - 18) < 10:  # it met a wall at a side
                    angles.append(np.arctan2(step[1], abs(step[0])))
    share = np.abs(angles) < np.pi / 4
    assert abs(share.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(angles))


@pytest.mark.parametrize("name", ["svg", "srvp", "nsf"])
def test_clip_shows_its_digits_where_it_says(tmp_path, name):
    artist = StochasticDigits(name, 1, write_mnist(tmp_path), 0.0, 1.0)
    video, metadata = next(artist.clips(np.random.default_rng(0), 1, SPEC))
    mass, pixel = video[..., 0].astype(float), np.arange(64)
    total = mass.sum((1, 2))
    x = (mass * pixel).sum((1, 2)) / total
    y = (mass * pixel[:, None]).sum((1, 2)) / total
    corner = np.array(metadata["corners"][0])
    middle = corner + (DIGIT[name] - 1) / 2
    np.testing.assert_allclose(np.stack([x, y], 1), middle, atol=0.1)
    assert artist.truth()["digit_side"] == DIGIT[name]


def test_splits_share_no_image_and_small_frames_are_means(tmp_path):
    shares = {"train": 0.75, "val": 0.25}
    artists = stochastic_digits("srvp", 1, write_mnist(tmp_path), shares, 32)
    small = CutSpec(32, 8.0, 4, 4, "crop", "npy")
    seen = {}
    for split, artist in artists.items():
        clips = list(artist.clips(np.random.default_rng(0), 200, SPEC))
        seen[split] = {int(video.max()) for video, _ in clips}
        video, _ = next(artist.clips(np.random.default_rng(1), 1, small))
        assert video.shape == (4, 32, 32, 1)
    assert not seen["train"] & seen["val"]
    assert len(seen["train"]) == 30
    assert len(seen["val"]) == 10


def test_bad_input_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        stochastic_digits("svg", 2, tmp_path, {"train": 1.0}, 64)
    with pytest.raises(UserError, match="--frame_size is 48"):
        stochastic_digits("svg", 2, write_mnist(tmp_path), {"train": 1.0}, 48)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"P5 28 28 255 not an IDX file")
    smmnist.read_mnist.cache_clear()
    with pytest.raises(UserError, match="no whole IDX file"):
        stochastic_digits("svg", 2, tmp_path, {"train": 1.0}, 64)
