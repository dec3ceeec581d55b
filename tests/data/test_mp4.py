"""The decoder that stays open gives the pixels of a plain decode, whatever it had before."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest

from sdevid.data import mp4
from sdevid.data.payload import decode, encode


def clip(seed: int, frames: int = 16, side: int = 64, channels: int = 3) -> np.ndarray:
    """Waves that move, and noise, so that each frame has much to say."""
    rng = np.random.default_rng(seed)
    t, y, x, c = np.ogrid[:frames, :side, :side, :channels]
    speed = rng.uniform(-4, 4, 3)
    waves = np.sin((x + speed[0] * t) / 5) + np.cos((y + speed[1] * t) / 7) + np.sin(speed[2] * c)
    return (127 + 30 * waves + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


def plain(payload: bytes, channels: int = 3) -> np.ndarray:
    with av.open(io.BytesIO(payload)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        form = "gray" if channels == 1 else "rgb24"
        frames = [frame.to_ndarray(format=form) for frame in container.decode(video=0)]
    return np.stack(frames).reshape(len(frames), *frames[0].shape[:2], channels)


def kept_open(payload: bytes, channels: int = 3) -> np.ndarray | None:
    result = mp4.images(payload, (0, 256, 256, channels))
    return None if result is None else np.stack([image.copy() for image in result])


@pytest.mark.parametrize("frames", [1, 2, 16, 60])
@pytest.mark.parametrize(("side", "channels"), [(64, 3), (48, 1), (22, 3), (130, 1)])
def test_our_own_files_come_out_as_from_a_plain_decode(frames, side, channels):
    for seed in range(3):
        payload = encode("mp4", clip(seed, frames, side, channels), 8.0)
        got = kept_open(payload, channels)
        assert got is not None
        np.testing.assert_array_equal(got, plain(payload, channels))


def test_many_clips_on_many_threads():
    payloads = [encode("mp4", clip(k, 4 + k % 3, 64 + 16 * (k % 2)), 8.0) for k in range(12)]
    wanted = [plain(payload) for payload in payloads]

    def read(k: int) -> bool:
        number = k * 5 % len(payloads)
        return np.array_equal(kept_open(payloads[number]), wanted[number])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(120)))


def test_clip_after_a_broken_one_is_whole():
    good = encode("mp4", clip(0), 8.0)
    wanted = plain(good)
    broken = bytearray(good)
    start = broken.index(b"mdat")
    broken[start + 40 : start + 2_000] = bytes(1_960)
    for payload in (bytes(broken), good[:-400], good[: len(good) // 2]):
        with pytest.raises(ValueError, match="payload"):
            decode("mp4", payload, (17, 64, 64, 3))
        np.testing.assert_array_equal(kept_open(good), wanted)
    result = mp4.images(good, (17, 64, 64, 3))
    next(result)
    result.close()  # left in the middle
    np.testing.assert_array_equal(kept_open(good), wanted)


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def other(
    options: dict[str, str], codec: str = "libx264", sound: bool = False, **form: str
) -> bytes:
    """A clip as another writer would put it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=form) as container:
        stream = container.add_stream(codec, rate=Fraction(8), options=options)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        if sound:
            container.add_stream("aac", rate=44_100)
        for image in clip(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(lambda: other({"bf": "3"}), id="B-frames"),
        pytest.param(lambda: other({}, "mpeg4"), id="another codec"),
        pytest.param(lambda: other({"bf": "0"}, sound=True), id="sound"),
        pytest.param(lambda: other({"bf": "0"}, **FRAGMENTS), id="fragments"),
        pytest.param(
            lambda: other({"bf": "0", "colorspace": "bt709", "color_range": "pc"}), id="colours"
        ),
        pytest.param(lambda: other({"bf": "0", "g": "4"}), id="many key frames"),
    ],
)
def test_files_of_other_writers_decode_as_they_should(payload):
    content = payload()
    wanted = plain(content)
    np.testing.assert_array_equal(decode("mp4", content, wanted.shape), wanted)


def test_complex_mp4_is_left_to_the_plain_decoder():
    assert kept_open(other({"bf": "3"})) is None
    assert kept_open(other({}, "mpeg4")) is None
    assert kept_open(other({"bf": "0"}, **FRAGMENTS)) is None
    assert kept_open(b"not a film") is None
    assert kept_open(b"") is None
