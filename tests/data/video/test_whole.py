"""A file is whole if it shows what its header states, edit lists counted, in any container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sdevid.data.decode import cut_video
from sdevid.data.spec import BadVideoError
from sdevid.data.video.inspect import choose_stream, inspect
from sdevid.data.video.open import open_video

CONTAINERS = [
    ("a.mp4", "libx264", {"movflags": "+faststart"}),
    ("a.mov", "mpeg4", {"movflags": "+faststart"}),
    ("a.mkv", "libx264", {}),
    ("a.webm", "libvpx-vp9", {}),
    ("a.avi", "mpeg4", {}),
    ("a.flv", "flv", {}),
    ("a.asf", "msmpeg4", {}),
    ("a.ts", "mpeg2video", {}),
    ("live.webm", "libvpx-vp9", {"live": "1"}),  # no length in its header
    ("a.mxf", "mpeg2video", {}),
    ("fragments.mp4", "libx264", {"movflags": "+frag_keyframe+empty_moov"}),
]


def film(path: Path, codec: str, options: dict[str, str], seconds: int = 4) -> Path:
    """Noise at 25 frames a second."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10", "cpu-used": "8"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in rng.integers(0, 255, (25 * seconds, 64, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_container_cut_off_anywhere_is_damaged(tmp_path, make_spec, name, codec, options):
    path = film(tmp_path / name, codec, options)
    assert len(list(cut_video(path, make_spec(fps=25.0)))) == 12
    content = path.read_bytes()
    for share in (0.4, 0.85):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(BadVideoError, match=r"cut off|damaged at frame|does not decode|ends"):
            list(cut_video(path, make_spec(fps=25.0)))


def test_lossless_trim_shows_what_its_edit_list_does(tmp_path, make_spec, ffmpeg):
    film(tmp_path / "base.mp4", "libx264", {}, seconds=4)
    ffmpeg("-i", tmp_path / "base.mp4", "-c:v", "libx264", "-g", 250, tmp_path / "long.mp4")
    ffmpeg("-ss", 2, "-i", tmp_path / "long.mp4", "-t", 1.2, "-c", "copy", tmp_path / "trim.mp4")
    with av.open(str(tmp_path / "trim.mp4")) as container:
        hidden = container.streams.video[0].frames - sum(1 for _ in container.decode(video=0))
    assert hidden > 40  # the lead-in
    clips = list(cut_video(tmp_path / "trim.mp4", make_spec(fps=25.0)))
    assert [start for start, _, _ in clips][:3] == [0.0, 0.32, 0.64]


def test_animation_without_its_end_is_damaged(tmp_path, make_spec):
    frames = [Image.new("RGB", (32, 32), (8 * k, 0, 0)) for k in range(30)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    assert len(list(cut_video(path, make_spec(fps=10.0)))) == 3
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadVideoError, match="without the trailer of a GIF"):
        list(cut_video(path, make_spec(fps=10.0)))


def test_late_start_is_no_damage(tmp_path, make_spec, ffmpeg):
    film(tmp_path / "base.mp4", "libx264", {}, seconds=2)
    late = ["-itsoffset", 3, "-i", tmp_path / "base.mp4", "-c", "copy"]
    for name in ("late.mp4", "late.mkv"):
        ffmpeg(*late, tmp_path / name)
        assert len(list(cut_video(tmp_path / name, make_spec(fps=25.0)))) == 6


def test_sound_that_goes_on_is_no_damage(tmp_path, make_spec):
    path = tmp_path / "long_sound.mkv"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le")
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 4 * 44_100 * 2), np.int16), layout="stereo")
        quiet.rate = 44_100
        container.mux(sound.encode(quiet))
        container.mux(sound.encode())
    assert len(list(cut_video(path, make_spec(fps=25.0)))) == 3


def two_streams(path: Path, first: tuple[int, int], second: tuple[int, int], default: int) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for number, (stream, size) in enumerate(zip(streams, (first, second), strict=True)):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            flag = av.stream.Disposition.default
            stream.disposition = flag if number == default else av.stream.Disposition(0)
        for _ in range(25):
            for stream in streams:
                image = np.zeros((stream.height, stream.width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("sizes", "default", "chosen"),
    [
        (((64, 48), (160, 120)), 1, 1),  # a thumbnail track first
        (((64, 48), (160, 120)), 0, 0),  # the flag outweighs five million pixels
        (((160, 120), (64, 48)), 2, 0),
        (((64, 48), (160, 120)), 2, 1),  # no flag: the larger
    ],
)
def test_stream_is_ffmpegs_own_choice(tmp_path, sizes, default, chosen):
    path = two_streams(tmp_path / "two.mkv", *sizes, default)
    with open_video(path) as container:
        assert choose_stream(container).index == chosen
    with open_video(path) as container:
        result = inspect(container)
    assert (result.stream, result.notes) == (chosen, ("several video streams",))
    assert result.period == Fraction(1, 25)


def test_cover_is_never_the_video(tmp_path, make_spec, ffmpeg):
    film(tmp_path / "a.mp4", "mpeg4", {}, seconds=1)
    Image.new("RGB", (640, 480)).save(tmp_path / "cover.jpg")
    ffmpeg(
        *("-i", tmp_path / "cover.jpg", "-i", tmp_path / "a.mp4", "-map", 0, "-map", 1),
        *("-c", "copy", "-disposition:v:0", "attached_pic", tmp_path / "covered.mp4"),
    )
    with open_video(tmp_path / "covered.mp4") as container:
        assert choose_stream(container).codec_context.name == "mpeg4"
    assert len(list(cut_video(tmp_path / "covered.mp4", make_spec(fps=25.0)))) == 3
