"""The size of a frame as people write it: `64` for a square one, `96x64` for width and height."""

from __future__ import annotations

import re

Shape = tuple[int, int]  # height, width


def parse(size: str) -> Shape:
    """Parse height and width, in pixels. ValueError with the rule where `size` is none."""
    match = re.fullmatch(r"\s*([0-9]{1,5})(?:\s*[xX]\s*([0-9]{1,5}))?\s*", size)
    if match is None or 0 in (sides := [int(side) for side in match.groups() if side]):
        raise ValueError(f"frame_size is {size!r}, but must be a side or WIDTHxHEIGHT, as 96x64")
    return sides[-1], sides[0]


def text(shape: Shape) -> str:
    """Format `shape` as `parse` reads it."""
    height, width = shape
    return str(height) if height == width else f"{width}x{height}"
