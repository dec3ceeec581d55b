"""A contact sheet of a cut: clips at even distances, each a strip of frames over its caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sdevid.data.shards import Clip, ShardIndex, open_shards
from sdevid.data.spec import words

NAME = "sheet.png"
_CLIPS, _COLUMNS, _FRAMES = 24, 3, 4
_SIDE = 96  # pixels of a frame's longer side, at most
_LETTERS, _LINE, _MARGIN = 44, 14, 6  # of a caption's line; pixels of a line and around a strip


def write_sheet(folder: Path, dataset: dict[str, Any]) -> Path:
    """Write sheet.png of the shards in `folder`, whose dataset.json is `dataset`."""
    splits = [open_shards(folder, split) for split in dataset["splits"]]
    strips = [_strip(*one) for one in _chosen(splits)]
    width, height = (max(side) for side in zip(*(strip.size for strip in strips), strict=True))
    rows = -(-len(strips) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (number % _COLUMNS * width, number // _COLUMNS * height))
    for index in splits:
        index.close()
    aside = folder / f"{NAME}.part"
    sheet.save(aside, format="PNG")
    return aside.replace(folder / NAME)


def _chosen(splits: list[ShardIndex]) -> list[tuple[str, Clip]]:
    """Split and clip, at even distances over all splits one after the other."""
    candidates = [(index, k) for index in splits for k in range(len(index))]
    picked = np.linspace(0, len(candidates) - 1, min(_CLIPS, len(candidates))).round().astype(int)
    return [(candidates[p][0].split, candidates[p][0].read(candidates[p][1])) for p in picked]


def _strip(split: str, clip: Clip) -> Image.Image:
    """Draw a few frames of a clip in a row, above what it is and what is said of it."""
    times = np.linspace(0, len(clip.video) - 1, min(_FRAMES, len(clip.video))).round().astype(int)
    frames = [Image.fromarray(frame).convert("RGB") for frame in _shown(clip.video[times])]
    for frame in frames:
        frame.thumbnail((_SIDE, _SIDE))
    width, height = frames[0].size
    room = (_FRAMES * (width + 2) + _MARGIN, height + 3 * _LINE + _MARGIN)
    strip = Image.new("RGB", room, "white")
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * (width + 2), 0))
    captions = words(clip.meta)
    lines = [f"{split}: {clip.meta.get('source', clip.key)}"[-_LETTERS:]]
    lines += [captions[k : k + _LETTERS] for k in range(0, len(captions), _LETTERS)][:2]
    for number, line in enumerate(lines):
        place = (0, height + number * _LINE)
        ImageDraw.Draw(strip).text(place, _printable(line), fill="black")
    return strip


def _shown(frames: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Convert frames to 8-bit grey or RGB: stretch other types; of other channels, show the 1st."""
    if frames.dtype != np.uint8:
        values = np.nan_to_num(frames.astype(np.float64))
        low, high = values.min(), values.max()
        frames = (255 * (values - low) / (high - low or 1)).astype(np.uint8)
    channels = frames.shape[-1]
    return list(frames if channels == 3 else frames[..., 0])


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
