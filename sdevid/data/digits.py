"""Moving digits: digits that bounce about, after Srivastava, Mansimov & Salakhutdinov 2015.

Each keeps a constant speed between walls. The digits are drawn in a font or, with a folder that
holds MNIST's IDX files, taken from those.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from sdevid.data.drawn import Drawing
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

_SIDE = 28 / 64  # of a digit, as a share of the frame's
_SPEED = 0.75  # mean, frame sides a second
_CELL = 28  # pixels, the side of a digit in MNIST
_MAGIC = {"images": 2051, "labels": 2049}

Glyphs = UInt8[np.ndarray, "n 28 28"]


@dataclass(frozen=True)
class DigitArtist:
    """`count` digits a clip; of MNIST's only the share from `low` to `high`, for one split."""

    count: int
    folder: Path | None
    low: float
    high: float

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Yield `count` clips with label and caption."""
        glyphs, labels = _font_digits() if self.folder is None else read_mnist(self.folder)
        if self.folder is not None:
            part = slice(int(self.low * len(glyphs)), math.ceil(self.high * len(glyphs)))
            glyphs, labels = glyphs[part], labels[part]
        for _ in range(count):
            which = rng.integers(len(glyphs), size=self.count)
            video = np.zeros((spec.clip_length, spec.frame_size, spec.frame_size), np.uint8)
            for glyph in glyphs[which]:
                np.maximum(video, _bounce(rng, glyph, spec), out=video)
            names = [str(label) for label in labels[which]]
            caption = f"{'the digits' if len(names) > 1 else 'the digit'} {' and '.join(names)}"
            yield video[..., None], {"label": "".join(names), "caption": caption}

    def truth(self) -> None:
        """Return None: no SDE moves the digits."""


def digit_artists(
    count: int, folder: Path | None, shares: Mapping[str, float]
) -> dict[str, DigitArtist]:
    """Make an artist for each split; the splits share no digit of MNIST."""
    if folder is not None:
        read_mnist(folder)
    artists, low = {}, 0.0
    for split, share in shares.items():
        artists[split] = DigitArtist(count, folder, low, min(1.0, low + share))
        low += share
    return artists


@lru_cache(maxsize=1)
def read_mnist(folder: Path) -> tuple[Glyphs, UInt8[np.ndarray, " n"]]:
    """Read all digits and labels of the IDX files in `folder`, plain or gzipped.

    Raises UserError where there are none or one is damaged.
    """
    glyphs = [_read_idx(path, "images") for path in _idx_files(folder, "images-idx3-ubyte")]
    labels = [_read_idx(path, "labels") for path in _idx_files(folder, "labels-idx1-ubyte")]
    images = np.concatenate(glyphs).reshape(-1, _CELL, _CELL)
    numbers = np.concatenate(labels)
    if len(images) != len(numbers):
        raise UserError(
            f"--input_dir {folder} holds {len(images)} digits, but {len(numbers)} labels; give "
            "the files of both"
        )
    return images, numbers


def _bounce(
    rng: np.random.Generator, glyph: UInt8[np.ndarray, "28 28"], spec: CutSpec
) -> UInt8[np.ndarray, "time height width"]:
    side = max(4, round(_SIDE * spec.frame_size))
    room = spec.frame_size - side
    small = Image.fromarray(glyph).resize((side, side), Image.Resampling.BICUBIC)
    angle = rng.uniform(0, 2 * np.pi)
    speed = _SPEED * spec.frame_size * rng.uniform(0.7, 1.3)
    times = np.arange(spec.clip_length)[:, None] / spec.fps
    path = rng.uniform(0, room, 2) + speed * times * np.array([np.cos(angle), np.sin(angle)])
    path = room - np.abs(path % (2 * room) - room)  # reflected at 0 and at `room`
    return np.stack([_place(np.asarray(small, np.float64), p, spec.frame_size) for p in path])


def _place(
    glyph: Float[np.ndarray, "side side"], corner: Float[np.ndarray, " 2"], size: int
) -> UInt8[np.ndarray, "size size"]:
    """Draw a glyph with its corner (x, y) between pixels, by bilinear weights."""
    (left, top), (right, down) = corner.astype(int), corner % 1
    frame = np.zeros((size + 1, size + 1))
    side = len(glyph)
    for dy, by_row in ((0, 1 - down), (1, down)):
        for dx, by_column in ((0, 1 - right), (1, right)):
            rows = slice(top + dy, top + dy + side)
            frame[rows, left + dx : left + dx + side] += by_row * by_column * glyph
    return np.rint(frame[:size, :size]).astype(np.uint8)


@lru_cache(maxsize=1)
def _font_digits() -> tuple[Glyphs, UInt8[np.ndarray, " n"]]:
    font = ImageFont.load_default(size=26)
    glyphs = []
    for digit in range(10):
        cell = Image.new("L", (_CELL, _CELL))
        middle = (_CELL / 2, _CELL / 2)
        ImageDraw.Draw(cell).text(middle, str(digit), fill=255, font=font, anchor="mm")
        glyphs.append(np.asarray(cell))
    return np.stack(glyphs), np.arange(10, dtype=np.uint8)


def _idx_files(folder: Path, ending: str) -> list[Path]:
    files = sorted([*folder.glob(f"*{ending}"), *folder.glob(f"*{ending}.gz")])
    if not files:
        raise UserError(
            f"--input_dir {folder} holds no *{ending} or *{ending}.gz; give a folder with MNIST's "
            "files, or no --input_dir for digits in a font"
        )
    return files


def _read_idx(path: Path, what: str) -> UInt8[np.ndarray, " bytes"]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"{path} does not read: {error}; copy it again") from error
    header = 16 if what == "images" else 8
    number = int.from_bytes(content[4:8])
    size = number * (_CELL * _CELL if what == "images" else 1)
    if int.from_bytes(content[:4]) != _MAGIC[what] or len(content) != header + size:
        raise UserError(f"{path} is no whole IDX file of {what}; copy it again")
    return np.frombuffer(content, np.uint8, offset=header)
