"""Digits bounce within the frame; MNIST's are read from its own files and not shared by splits."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sdevid.data.digits import DigitArtist, digit_artists, read_mnist
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

SPEC = CutSpec(64, 8.0, 40, 40, "crop", "npy")


def write_mnist(folder: Path, count: int = 20) -> Path:
    """Digit i is flat with level 10 (i + 1)."""
    folder.mkdir(exist_ok=True)
    pixels = np.repeat(10 * np.arange(1, count + 1, dtype=np.uint8), 784).tobytes()
    header = b"".join(n.to_bytes(4) for n in (2051, count, 28, 28))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels))
    labels = bytes(i % 10 for i in range(count))
    header = b"".join(n.to_bytes(4) for n in (2049, count))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header + labels)
    return folder


def test_digit_moves_steadily_and_turns_at_the_walls(tmp_path):
    artist = DigitArtist(1, write_mnist(tmp_path, 1), 0.0, 1.0)
    for video, _ in artist.clips(np.random.default_rng(0), 5, SPEC):
        mass = video[..., 0].astype(float)
        total = mass.sum((1, 2))
        assert np.ptp(total) < 0.02 * total.mean()  # never cut off
        pixel = np.arange(64)
        x = (mass * pixel).sum((1, 2)) / total
        step = np.abs(np.diff(x))
        free = (x[:-1] > 20) & (x[:-1] < 43) & (x[1:] > 20) & (x[1:] < 43)
        assert step[free].std() < 0.1
        assert x.min() >= 13
        assert x.max() <= 50


def test_label_and_caption_name_the_digits():
    _, metadata = next(DigitArtist(2, None, 0.0, 1.0).clips(np.random.default_rng(0), 1, SPEC))
    first, second = metadata["label"]
    assert metadata["caption"] == f"the digits {first} and {second}"


def test_splits_share_no_digit(tmp_path):
    artists = digit_artists(1, write_mnist(tmp_path), {"train": 0.8, "val": 0.2})
    seen = {
        split: {int(video.max()) for video, _ in artist.clips(np.random.default_rng(0), 60, SPEC)}
        for split, artist in artists.items()
    }
    assert max(seen["train"]) <= 160 < min(seen["val"])


def test_files_that_are_not_mnist_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        digit_artists(1, tmp_path, {"train": 1.0})
    path = write_mnist(tmp_path) / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="no whole IDX file"):
        read_mnist(tmp_path)
