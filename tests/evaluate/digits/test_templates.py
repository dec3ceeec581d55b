"""Digits as templates: found where they are, by as much as is there, and lost where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.evaluate.digits import templates

SIDE, FRAME = 6, 24


def clip_of_two(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Three frames of a full and of a hollow square, and their middles."""
    hollow = np.full((SIDE, SIDE), 255, np.uint8)
    hollow[2:4, 2:4] = 0
    corners = np.array([[[1, 2], [15, 14]], [[4, 2], [12, 14]], [[7, 2], [9, 14]]])
    frames = np.zeros((3, FRAME, FRAME, 1), np.uint8)
    for frame, places in zip(frames, corners, strict=True):
        for (x, y), digit in zip(places, (np.full((SIDE, SIDE), 255), hollow), strict=True):
            frame[y : y + SIDE, x : x + SIDE, 0] = digit
    return frames[:, ::scale, ::scale], corners + SIDE / 2


def test_digits_are_found_whole_where_they_are():
    frames, middle = clip_of_two()
    digits = templates.cut(frames, middle, SIDE, FRAME)
    found = templates.fit(frames, digits, FRAME)
    np.testing.assert_allclose(found.place, middle)
    np.testing.assert_allclose(found.explained, 1.0, atol=1e-5)


def test_a_fainter_digit_is_explained_by_less():
    """Of a digit at a share a of its brightness 2 a - a^2 is explained."""
    frames, middle = clip_of_two()
    digits = templates.cut(frames, middle, SIDE, FRAME)
    faint = templates.fit((frames * 0.6).astype(np.uint8), digits, FRAME)
    np.testing.assert_allclose(faint.explained, 2 * 0.6 - 0.36, atol=2e-3)


@pytest.mark.parametrize("scale", [1, 2])
def test_nothing_is_looked_for_in_the_middle(scale):
    frames, middle = clip_of_two(scale)
    digits = templates.cut(frames, middle, SIDE, FRAME)
    empty = templates.fit(np.zeros_like(frames), digits, FRAME)
    np.testing.assert_allclose(empty.place, FRAME / 2)
    assert float(np.abs(empty.explained).max()) < templates.LOST
