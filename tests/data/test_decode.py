"""Real codecs and containers: every frame at its own time, upright and square, or a reason."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sdevid.data.decode import cut_video
from sdevid.data.spec import BadVideoError, LeftOutError


def numbers(video: np.ndarray) -> list[int]:
    """Which frame each one is, by its grey level."""
    middle = video[:, 4:-4, 4:-4].mean((1, 2, 3))
    return np.rint((middle - 20) / 6).astype(int).tolist()


CODECS = [
    ("a.mp4", "libx264", "yuv420p", {"bf": "0"}),
    ("b.mp4", "libx264", "yuv420p", {"bf": "3", "g": "9"}),
    ("b.avi", "libx264", "yuv420p", {"bf": "3", "g": "9"}),  # no presentation times in AVI
    ("p.avi", "mpeg4", "yuv420p", {"bf": "2", "qmax": "2"}),
    ("m.avi", "mjpeg", "yuvj420p", {}),
    ("v.webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8"}),
    ("t.mkv", "libx264", "yuv420p10le", {}),
    ("l.mkv", "ffv1", "yuv444p", {}),
    ("t.ts", "mpeg2video", "yuv420p", {"b": "2000k"}),
    ("r.h264", "libx264", "yuv420p", {"bf": "2"}),  # no times at all
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options"), CODECS)
def test_every_codec_gives_each_frame_at_its_time(
    make_video, make_spec, name, codec, pix_fmt, options
):
    path = make_video(name, codec, pix_fmt=pix_fmt, options=options, rate=25)
    spec = make_spec(fps=25.0, clip_length=10, clip_stride=10)
    clips = list(cut_video(path, spec))
    assert [start for start, _, _ in clips] == [0.0, 0.4, 0.8]
    assert [numbers(video) for _, video, _ in clips] == [
        list(range(first, first + 10)) for first in (0, 10, 20)
    ]


def test_lower_rate_takes_the_nearest_frame(make_video, make_spec):
    path = make_video(rate=30)
    _, video, extra = next(cut_video(path, make_spec(fps=12.5, clip_length=12)))
    assert numbers(video) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 22, 24, 26]
    assert extra == {"source_fps": 30.0, "repeated_frames": 0, "jumps": 0}


def test_higher_rate_repeats_frames_and_says_so(make_video, make_spec):
    path = make_video(rate=5, frames=6)
    _, video, extra = next(cut_video(path, make_spec(fps=10.0, clip_length=8)))
    assert numbers(video) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert extra["repeated_frames"] == 4


def test_variable_rate_goes_by_timestamps(make_video, make_spec):
    times = [0, 100, 200, 230, 260, 300, 900, 1000, 1100, 1500]
    path = make_video("v.mkv", frames=10, times=times, rate=10)
    _, video, _ = next(cut_video(path, make_spec(fps=10.0, clip_length=12)))
    assert numbers(video) == [0, 1, 2, 5, 5, 5, 5, 6, 6, 6, 7, 8]


def test_frames_that_a_gap_leaves_out_are_missing(make_video, make_spec):
    times = [round(1000 * k / 15) for k in range(28) if not 10 <= k < 14]
    path = make_video("a.mkv", frames=len(times), times=times)
    clips = list(cut_video(path, make_spec(clip_length=14, clip_stride=14)))
    assert [extra.get("missing", []) for _, _, extra in clips] == [[10, 11, 12, 13], []]
    slow = list(cut_video(path, make_spec(fps=60.0, clip_length=36, clip_stride=36)))
    assert "missing" not in slow[0][2]  # each frame stands for four, and none is missing


def test_stride_overlaps_or_leaves_gaps(make_video, make_spec):
    path = make_video()
    for stride, starts in ((3, [0, 3, 6, 9, 12, 15, 18, 21]), (11, [0, 11, 22])):
        spec = make_spec(clip_length=8, clip_stride=stride)
        assert [numbers(video) for _, video, _ in cut_video(path, spec)] == [
            list(range(first, first + 8)) for first in starts
        ]


def test_section_is_cut_from_a_longer_file_alone(make_video, make_spec):
    path = make_video()  # two seconds
    spec = make_spec(clip_length=8, clip_stride=8)
    (start, video, _), *rest = cut_video(path, spec, (1.0, 1.8))
    assert (start, numbers(video), rest) == (1.0, list(range(15, 23)), [])
    assert len(list(cut_video(path, spec, (30.0, 32.0)))) == 3


def quarters() -> np.ndarray:
    """An image of red, green, blue and white quarters, 64 wide and 64 high."""
    colours = np.array([[[200, 0, 0], [0, 200, 0]], [[0, 0, 200], [200, 200, 200]]], np.uint8)
    return colours.repeat(32, 0).repeat(32, 1)


def test_crop_takes_the_middle_and_letterbox_all(make_video, make_spec):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :16], wide[:, 16:48], wide[:, 48:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    path = make_video(images=[wide] * 8, pix_fmt="yuv444p")
    _, cropped, _ = next(cut_video(path, make_spec()))
    assert (cropped[0, :, 1:-1, 1] > 180).all()
    _, boxed, _ = next(cut_video(path, make_spec(fit="letterbox")))
    assert boxed[0, :4].max() == 0
    assert boxed[0, 12:].max() == 0
    assert boxed[0, 8, [1, 8, 14]].argmax(-1).tolist() == [0, 1, 2]


def test_pixels_that_are_not_square_are_made_so(make_video, make_spec):
    """A 32 x 64 picture with pixels twice as wide as high is a square."""
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[:32, :16] = 200
    path = make_video("s.mkv", images=[picture] * 8, aspect=Fraction(2))
    for fit in ("crop", "letterbox"):
        _, video, _ = next(cut_video(path, make_spec(fit=fit)))
        assert video[0, :7, :7].min() > 180
        assert max(video[0, 9:].max(), video[0, :, 9:].max()) < 20


def still(tmp_path: Path) -> Path:
    path = tmp_path / "image.mp4"
    Image.fromarray(quarters()).save(path, format="PNG")
    return path


def cut_off(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def noise_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 255, (30, 48, 64, 3), dtype=np.uint8))


def test_damaged_video_is_named(make_video, make_spec, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 500)
    noisy = {"images": noise_images(), "codec": "mpeg4"}
    reasons = {
        tmp_path / "empty.mp4": "is an empty file",
        tmp_path / "text.mp4": "does not decode",
        tmp_path / "missing.mp4": "does not decode",
        cut_off(make_video("half.mp4"), 0.5): "does not decode",
        cut_off(make_video("half.avi", **noisy), 0.5): "is cut off: its header states 2.0 s",
    }
    for path, reason in reasons.items():
        with pytest.raises(BadVideoError, match=reason):
            list(cut_video(path, make_spec()))


def test_whole_but_useless_video_is_left_out(make_video, make_spec, tmp_path):
    with av.open(str(tmp_path / "tone.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    reasons = {
        still(tmp_path): "is a still image",
        make_video("short.mp4", frames=7): "is too short: 7 frames at 15 a second",
        tmp_path / "tone.mp4": "no video stream",
    }
    for path, reason in reasons.items():
        with pytest.raises(LeftOutError, match=reason):
            list(cut_video(path, make_spec()))
