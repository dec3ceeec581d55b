"""Pictures come out as FFmpeg shows them: upright, whole, in the colours of ordinary video."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sdevid.data.decode import cut_video
from sdevid.data.video.orient import Orientation
from sdevid.data.video.tone import ToneMap, hlg_light, pq_coded, pq_light

PQ, HLG, BT709, BT2020 = 16, 18, 1, 9


def quarters(height: int = 64, width: int = 64) -> np.ndarray:
    """Red, green, blue and white quarters."""
    colours = np.array([[[200, 0, 0], [0, 200, 0]], [[0, 0, 200], [200, 200, 200]]], np.uint8)
    return colours.repeat(height // 2, 0).repeat(width // 2, 1)


def first_frame(path: Path, size: int) -> np.ndarray:
    """As FFmpeg shows it."""
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    image = np.frombuffer(next(frames), np.uint8)
    frames.close()
    side = int(np.sqrt(image.size // 3)) if width == height else 0
    assert side == size
    return image.reshape(size, size, 3)


def finished(cutting) -> tuple[list[np.ndarray], Counter[str]]:
    videos = []
    while True:
        try:
            videos.append(next(cutting)[1])
        except StopIteration as end:
            return videos, end.value


@pytest.mark.parametrize("flips", [[], ["-display_hflip"], ["-display_vflip"]])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_all_orientations_are_as_ffmpeg_shows_them(
    make_video, make_spec, ffmpeg, tmp_path, angle, flips
):
    path = make_video(images=[quarters()] * 12, pix_fmt="yuv444p")
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", angle, *flips, "-i", path, "-c", "copy", turned)
    want = first_frame(turned, 64)[8::16, 8::16].astype(int)
    _, video, _ = next(cut_video(turned, make_spec()))
    assert np.abs(video[0, 2::4, 2::4].astype(int) - want).max() < 12


def test_orientation_is_the_matrix_applied_to_places():
    picture = np.arange(6).reshape(2, 3)
    for transposed in (False, True):
        for left_right in (False, True):
            for up_down in (False, True):
                turned = Orientation(transposed, left_right, up_down).apply(picture)
                height, width = turned.shape
                for q, p in np.ndindex(2, 3):
                    x, y = (q, p) if transposed else (p, q)
                    x = width - 1 - x if left_right else x
                    y = height - 1 - y if up_down else y
                    assert turned[y, x] == picture[q, p]


def test_pq_and_its_inverse_have_the_standards_values():
    """SMPTE ST 2084: 100 cd/m2 is coded 0.5081, 1,000 cd/m2 0.7518, 10,000 cd/m2 1."""
    light = np.array([0.0, 100.0, 1_000.0, 10_000.0])
    coded = np.array([0.0, 0.5081, 0.7518, 1.0])
    assert_allclose(pq_coded(light), coded, atol=1e-4)
    assert_allclose(pq_light(pq_coded(light)), light, rtol=1e-9, atol=1e-9)


def test_hlg_of_grey_has_the_standards_values():
    """ITU-R BT.2408: 75 % HLG is 203 cd/m2, 100 % is 1,000 cd/m2."""
    for coded, light in ((0.75, 203), (1.0, 1_000)):
        assert_allclose(hlg_light(np.full((1, 1, 3), coded)), light, rtol=0.01)


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_tone_mapping_is_monotone_and_keeps_grey_and_black(curve):
    grey = np.linspace(0, 1, 101)[:, None, None].repeat(3, -1)
    shown = ToneMap(curve, BT2020)(grey)
    assert_allclose(shown[..., 0], shown[..., 1], atol=2e-3)
    assert (np.diff(shown[:, 0, 0]) >= -1e-9).all()
    assert shown[0].max() < 0.02
    assert shown.max() <= 1


def test_dim_light_of_pq_is_shown_as_bright_as_it_is():
    """20 cd/m2 lie below the knee: on a display of 100 cd/m2 a fifth of its white."""
    coded = np.full((1, 1, 3), pq_coded(np.array(20.0)))
    assert_allclose(ToneMap(PQ, BT709)(coded), 0.2 ** (1 / 2.4), rtol=1e-6)


def test_ordinary_curves_are_left_alone_and_strange_ones_named():
    assert not ToneMap(BT709, BT709).needed
    assert ToneMap(2, 2).note is None
    assert "not handled" in (ToneMap(9, BT709).note or "")


def test_film_in_pq_is_tone_mapped_and_named(ffmpeg, make_spec, tmp_path):
    """A colour made PQ with white at 100 cd/m2 comes back."""
    bt709 = "color_primaries=bt709:color_trc=bt709:colorspace=gbr"
    chain = (
        f"format=gbrpf32le,setparams={bt709},zscale=tin=bt709:pin=bt709:min=gbr:t=linear,"
        "zscale=p=bt2020:t=smpte2084:m=bt2020nc:r=tv,format=yuv420p10le"
    )
    tags = ["-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"]
    ffmpeg(
        *("-f", "lavfi", "-i", "color=0xC03020:size=64x64:rate=15", "-t", 1, "-vf", chain),
        *("-c:v", "libx264", *tags, "-color_range", "tv", tmp_path / "pq.mp4"),
    )
    (video, *_), notes = finished(cut_video(tmp_path / "pq.mp4", make_spec()))
    assert_allclose(video[0, 8, 8], [192, 48, 32], atol=10)
    assert notes["HDR by PQ (tone-mapped)"] == 1


def test_interlaced_frames_are_made_whole_and_named(ffmpeg, make_spec, tmp_path):
    """A bar that moves leaves combs between the lines of two fields; bwdif takes them out."""
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=64x64:rate=50", "-t", 2),
        *("-vf", "tinterlace=mode=interleave_top,setfield=tff", "-c:v", "libx264", "-qp", 0),
        *("-flags", "+ilme+ildct", "-x264-params", "tff=1", tmp_path / "i.mp4"),
    )
    videos, notes = finished(cut_video(tmp_path / "i.mp4", make_spec(frame_size=64, fps=25.0)))
    assert notes["interlaced (made whole by bwdif)"] == 1
    with av.open(str(tmp_path / "i.mp4")) as container:
        woven = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert combing(np.concatenate(videos)) < 0.7 * combing(np.stack(woven))


def combing(video: np.ndarray) -> float:
    """Mean difference of lines to those around them, beside that of the next lines but one."""
    lines = video.astype(float)
    return float(np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean())
