"""What is written can be read back as it was."""

import av
import numpy as np
import pytest
from PIL import Image

from sdevid.sample import write


def smooth(channels: int, height: int = 32, width: int = 32, time: int = 8) -> write.Pixels:
    t, y, x = np.ogrid[:time, :height, :width]
    wave = 127.5 + 110 * np.sin(0.1 * x + 0.15 * y + 0.3 * t)
    scale = np.array([1.0, 0.8, 0.6])[:channels]
    return (wave[..., None] * scale).astype(np.uint8)


def decoded(path) -> write.Pixels:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (31, 45)])
def test_mp4_holds_every_frame_nearly_unchanged_at_its_time(tmp_path, channels, size):
    video = smooth(channels, *size)
    write.mp4(tmp_path / "a.mp4", video, fps=12.5)
    back = decoded(tmp_path / "a.mp4")[:, : size[0], : size[1]]
    assert len(back) == len(video)
    assert np.abs(back.astype(int) - video).mean() < 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(np.diff(times), 0.08, atol=1e-6)


def test_same_video_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write.mp4(tmp_path / f"{name}.mp4", smooth(3), 8)
        write.gif(tmp_path / f"{name}.gif", smooth(3), 8)
        write.npz(tmp_path / f"{name}.npz", smooth(3), np.arange(8), 2)
    for kind in ("mp4", "gif", "npz"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("fps", [8, 24, 50, 120])
def test_gif_keeps_grey_exactly_and_lasts_as_long_as_the_video(tmp_path, fps):
    video = smooth(1, time=48)
    write.gif(tmp_path / "a.gif", video, fps)
    image = Image.open(tmp_path / "a.gif")
    assert np.array_equal(np.asarray(image.convert("L")), video[0, ..., 0])
    lasts = 0
    for i in range(image.n_frames):
        image.seek(i)
        assert image.info["duration"] >= 20
        lasts += image.info["duration"]
    assert lasts == pytest.approx(1000 * 48 / fps, abs=20)


def test_npz_is_lossless_and_says_what_was_given(tmp_path):
    write.npz(tmp_path / "a.npz", smooth(3), np.arange(8), observed=2)
    held = np.load(tmp_path / "a.npz")
    assert np.array_equal(held["video"], smooth(3))
    assert held["observed"] == 2


def test_tile_puts_each_video_in_its_place():
    videos = np.stack([np.full((2, 4, 6, 1), value, np.uint8) for value in (10, 20, 30)])
    sheet = write.tile(videos, columns=2)
    assert sheet.shape == (2, 4 + write.GAP + 4, 6 + write.GAP + 6, 1)
    assert (sheet[:, :4, :6] == 10).all()
    assert (sheet[:, :4, -6:] == 20).all()
    assert (sheet[:, -4:, :6] == 30).all()
    assert (sheet[:, -4:, -6:] == write.GROUND).all()


def test_contact_sheet_shows_first_and_last_frame():
    video = np.arange(10, dtype=np.uint8).reshape(1, 10, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    sheet = write.contact_sheet(video, columns=3)
    assert sheet[0, 0, 0] == 0
    assert sheet[0, -1, 0] == 9


def test_enlarge_repeats_whole_pixels():
    video = smooth(1, 8, 6, 2)
    large = write.enlarge(video, 16)
    assert large.shape == (2, 24, 18, 1)
    assert np.array_equal(large[:, ::3, ::3], video)


@pytest.mark.parametrize(
    ("frames", "fps", "still", "delay"),
    [
        (10_000, 8.0, True, 655_350),
        (3, 1 / 3600, False, 655_350),
        (3, 1e-300, False, 655_350),
        (4, 8.0, False, 120),
    ],
)
def test_gif_delays_are_clipped_to_what_a_gif_holds(tmp_path, frames, fps, still, delay):
    video = np.zeros((frames, 8, 8, 1), np.uint8)
    if not still:
        video += np.arange(frames, dtype=np.uint8)[:, None, None, None] * 60
    write.gif(tmp_path / "a.gif", video, fps)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["duration"] == delay
        assert getattr(gif, "n_frames", 1) == (1 if still else frames)
