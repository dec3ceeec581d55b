"""Initial frames: pictures, a picture or a video; and what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from sdevid.errors import UserError
from sdevid.sample import picture_files, write


def save(path, value, size=(8, 8), mode="RGB"):
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, value).save(path)


def read(path, count=None, most=5, side=8, channels=3, fps=8.0):
    return picture_files.read(path, count, most, (side, side), channels, fps)


def test_pictures_come_in_natural_order_up_to_the_models_limit(tmp_path):
    for i in range(1, 13):
        save(tmp_path / "f" / f"frame{i}.png", (i, i, i))
    pixels = read(tmp_path / "f")
    assert pixels.frames[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert pixels.notes == ()
    assert len(read(tmp_path / "f", count=3).frames) == 3


def test_one_picture_is_one_frame(tmp_path):
    save(tmp_path / "a.jpg", (50, 50, 50))
    assert read(tmp_path / "a.jpg").frames.shape == (1, 8, 8, 3)


def test_another_size_is_cut_and_resized_with_a_word(tmp_path):
    save(tmp_path / "a.png", (9, 9, 9), size=(40, 20))
    pixels = read(tmp_path / "a.png")
    assert pixels.frames.shape == (1, 8, 8, 3)
    assert pixels.notes == (
        "initial frames are 40x20, the model's 8x8: the middle square is resized",
    )


def test_colours_become_grey_for_a_model_of_one_channel(tmp_path):
    save(tmp_path / "a.png", (255, 0, 0))
    pixels = read(tmp_path / "a.png", channels=1)
    assert pixels.frames.shape == (1, 8, 8, 1)
    assert "grey" in pixels.notes[0]


def test_sixteen_bit_picture_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", channels=1).frames[0, 0, 0, 0] == 128


@pytest.mark.parametrize(("fps", "want"), [(8.0, [0, 1, 2, 3, 4]), (4.0, [0, 2, 4, 6, 8])])
def test_video_is_read_at_the_frame_rate_asked_for(tmp_path, fps, want):
    level = np.arange(12, dtype=np.uint8) * 20
    video = np.broadcast_to(level[:, None, None, None], (12, 8, 8, 1))
    write.mp4(tmp_path / "a.mp4", np.ascontiguousarray(video), 8)
    got = read(tmp_path / "a.mp4", fps=fps).frames[:, 0, 0, 0].astype(float) / 20
    assert np.round(got).tolist() == want


def test_video_of_another_size_is_resized_with_a_word(tmp_path):
    write.mp4(tmp_path / "a.mp4", np.full((3, 24, 32, 1), 90, np.uint8), 8)
    pixels = read(tmp_path / "a.mp4")
    assert pixels.frames.shape == (3, 8, 8, 3)
    assert "32x24" in pixels.notes[0]


def test_too_few_frames_names_both_numbers(tmp_path):
    save(tmp_path / "f" / "0.png", (1, 1, 1))
    with pytest.raises(UserError, match=r"holds 1 frames, but 3"):
        read(tmp_path / "f", count=3)


def test_video_shorter_than_asked_for_is_too_few(tmp_path):
    write.mp4(tmp_path / "a.mp4", np.zeros((2, 8, 8, 1), np.uint8), 8)
    with pytest.raises(UserError, match=r"holds 2 frames"):
        read(tmp_path / "a.mp4", count=5)
    assert len(read(tmp_path / "a.mp4").frames) == 2


def test_unreadable_picture_is_refused_by_name(tmp_path):
    for name in ("a.png", "a.mp4"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "none")


def test_cut_off_picture_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read(tmp_path / "a.png")


def test_folder_of_no_or_mixed_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds nothing"):
        read(tmp_path)
    save(tmp_path / "f" / "0.png", (1, 1, 1), size=(8, 8))
    save(tmp_path / "f" / "1.png", (1, 1, 1), size=(16, 8))
    with pytest.raises(UserError, match=r"16x8 and 8x8"):
        read(tmp_path / "f")
