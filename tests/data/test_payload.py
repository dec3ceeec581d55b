"""What is stored comes back: exactly, closely, or in the right number."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sdevid.data.payload import EXTENSION, decode, default_store, encode

shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3])
)


def smooth(frames: int, height: int, width: int, channels: int) -> np.ndarray:
    """A gradient that brightens from frame to frame."""
    t, y, x, _ = np.ogrid[:frames, :height, :width, :1]
    video = 40 + 100 * x / width + 60 * y / height + 40 * t / frames
    return np.broadcast_to(video, (frames, height, width, channels)).astype(np.uint8)


@given(shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape)))
def test_npy_is_lossless(video):
    np.testing.assert_array_equal(decode("npy", encode("npy", video, 8.0), video.shape), video)


@pytest.mark.parametrize("store", ["jpeg", "mp4"])
@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (7, 33, 21, 3), (16, 32, 32, 1), (5, 9, 9, 1)])
@pytest.mark.parametrize("fps", [8.0, 29.97])
def test_lossy_stores_keep_shape_and_come_close(store, shape, fps):
    video = smooth(*shape)
    payload = encode(store, video, fps)
    back = decode(EXTENSION[store], payload, video.shape)
    assert np.abs(back.astype(int) - video).max() <= 12
    assert encode(store, video, fps) == payload


@pytest.mark.parametrize("side", [22, 66, 112])
def test_mp4_has_the_same_bytes_whatever_lies_in_memory(side):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (6, side // 2, side // 2, 3), dtype=np.uint8)
    video = blocks.repeat(2, 1).repeat(2, 2)
    held = []
    payloads = set()
    for _ in range(20):
        payloads.add(encode("mp4", video, 8.0))
        held.append(rng.bytes(rng.integers(3 * side**2)))
    assert len(payloads) == 1


def test_sheet_longer_than_a_jpeg_may_be_goes_into_columns():
    video = smooth(300, 250, 4, 3)
    back = decode("jpg", encode("jpeg", video, 8.0), video.shape)
    assert np.abs(back.astype(int) - video).max() <= 8


def test_frames_of_a_sheet_do_not_mix():
    video = np.zeros((4, 13, 13, 3), np.uint8)
    video[1::2] = 255
    np.testing.assert_array_equal(decode("jpg", encode("jpeg", video, 8.0), video.shape), video)


def test_pickles_are_never_run():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="does not decode"):
        decode("npy", buffer.getvalue(), (1, 1, 1, 1))


@pytest.mark.parametrize("store", ["npy", "jpeg", "mp4"])
def test_another_shape_and_garbage_are_refused(store):
    video = smooth(6, 16, 16, 3)
    payload = encode(store, video, 8.0)
    for content, shape in (
        (payload, (7, 16, 16, 3)),
        (payload[:99], video.shape),
        (b"", video.shape),
    ):
        with pytest.raises(ValueError, match="payload"):
            decode(EXTENSION[store], content, shape)


def test_default_store_changes_above_128_pixels():
    assert [default_store(size) for size in (32, 128, 129)] == ["npy", "npy", "jpeg"]


@pytest.mark.parametrize("store", ["npy", "jpeg"])
def test_only_mp4_needs_pyav(store, monkeypatch):
    video = smooth(2, 8, 8, 3)
    payload = encode(store, video, 8)
    monkeypatch.setitem(sys.modules, "av", None)
    assert decode(EXTENSION[store], payload, video.shape).shape == video.shape
