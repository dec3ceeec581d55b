"""Read digits off frames by a small network that says which digit is where, trained on the spot.

It learns from the training split, whose clips say where their digits are, and is itself measured
on held-out real frames before it judges generated ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdevid.data.shards import ShardIndex
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.sample.write import Pixels

CELLS = 16  # of the grid that digits are looked for on, a side
STEPS, BATCH = 800, 32
CLIPS = 1024  # of the training split, at most
_NOTHING = 10  # the class of a cell with no digit's middle
_RARE = 0.01  # weight of those cells, which are 254 of 256
_LEAST = 0.1  # chance of a digit, below which none is said to be there


@dataclass(frozen=True)
class DigitReading:
    """Digits read off frames (n,), the likeliest first."""

    place: Floats  # (n, digits, 2), the middle (x, y) in pixels of the drawn frame; NaN: none
    name: Floats  # (n, digits), 0 to 9; NaN likewise


class DigitReader(nn.Module):
    """Network from frames to the content of each of 16 x 16 cells: a digit, and its middle."""

    def __init__(self, frame_size: int, channels: int) -> None:
        super().__init__()
        halvings = (frame_size // CELLS).bit_length() - 1
        strides = [2 if i < halvings else 1 for i in range(2)]
        wide = [channels, 24, 32, 40, 40, 40]
        spread = [(5, strides[0], 1), (3, strides[1], 1), (3, 1, 1), (3, 1, 2), (3, 1, 2)]
        layers: list[nn.Module] = []
        for i, (kernel, stride, dilation) in enumerate(spread):
            pad = dilation * (kernel // 2)
            layers += [
                nn.Conv2d(wide[i], wide[i + 1], kernel, stride, pad, dilation),
                nn.GroupNorm(4, wide[i + 1]),
                nn.SiLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide[-1], _NOTHING + 3, 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 frames to logits (n, 11, 16, 16) and offsets (n, 2, 16, 16).

        Frames are (n, height, width, channels).
        """
        out = self.layers(frames.movedim(-1, 1).float() / 255 - 0.5)
        return out[:, : _NOTHING + 1], torch.tanh(out[:, _NOTHING + 1 :])


def train_reader(
    index: ShardIndex, frame_size: int, channels: int, seed: int, steps: int = STEPS
) -> DigitReader:
    """Train a reader on the frames of `index`, whose clips have `label` and `corners`."""
    frames, names, middles = _examples(index)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = DigitReader(frame_size, channels)
    rate = 4e-3
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate)
    source = torch.Generator().manual_seed(seed)
    cell = index.dataset["truth"]["frame_side"] / CELLS
    weight = torch.ones(_NOTHING + 1)
    weight[_NOTHING] = _RARE
    for part in batches(range(steps), 1, "training the reader"):
        chosen = torch.randint(len(frames), (BATCH,), generator=source)
        logits, offset = reader(frames[chosen])
        at = (middles[chosen] / cell).clamp(0, CELLS - 1e-3)
        rows = torch.arange(BATCH)[:, None].expand(at.shape[:2])
        column, row = at[..., 0].long(), at[..., 1].long()
        wanted = torch.full((BATCH, CELLS, CELLS), _NOTHING)
        wanted[rows, row, column] = names[chosen]
        within = offset[rows, :, row, column] - 2 * (at - at.floor() - 0.5)
        loss = functional.cross_entropy(logits, wanted, weight) + within.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, 2 * (1 - part.start / steps))
        optimizer.step()
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def read(reader: DigitReader, frames: Pixels, digits: int, frame_side: int) -> DigitReading:
    """Read the `digits` likeliest digits off each frame (n, height, width, channels).

    Their places lie at least two cells apart.
    """
    positions, names = [], []
    for start in range(0, len(frames), 256):
        logits, offset = reader(torch.from_numpy(frames[start : start + 256]))
        logits[:, _NOTHING] -= math.log(_RARE)  # undoes the weight that it was trained with
        chance = logits.softmax(1)
        there = 1 - chance[:, _NOTHING]
        rows = torch.arange(len(there))
        readings: list[tuple[Tensor, Tensor]] = []
        for _ in range(digits):
            best, flat = there.flatten(1).max(1)
            row, column = flat // CELLS, flat % CELLS
            corner = torch.stack([column, row], dim=1)
            place = (corner + 0.5 + offset[rows, :, row, column] / 2) * (frame_side / CELLS)
            name = chance[rows, :_NOTHING, row, column].argmax(1).float()
            lost = best < _LEAST
            readings.append(
                (place.masked_fill(lost[:, None], torch.nan), name.masked_fill(lost, torch.nan))
            )
            grid = torch.arange(CELLS)
            near = (grid - row[:, None]).abs()[:, :, None] <= 1
            near = near & ((grid - column[:, None]).abs()[:, None, :] <= 1)
            there = there.masked_fill(near, 0.0)
        positions.append(torch.stack([place for place, _ in readings], dim=1))
        names.append(torch.stack([name for _, name in readings], dim=1))
    return DigitReading(torch.cat(positions).double().numpy(), torch.cat(names).double().numpy())


def followed(reading: DigitReading, starts: Floats, frames: int) -> DigitReading:
    """Follow each digit through videos of `frames` frames, by the nearest place to its last.

    `starts` (videos, digits, 2) are the middles just before the first frame. Returns place (videos,
    frames, digits, 2) and name (videos, frames, digits).
    """
    count = starts.shape[1]
    place = reading.place.reshape(-1, frames, count, 2).copy()
    name = reading.name.reshape(-1, frames, count).copy()
    orders = np.array(list(permutations(range(count))))
    last = starts.copy()
    for k in range(frames):
        apart = np.linalg.norm(place[:, k][:, orders] - last[:, None], axis=-1)
        best = orders[np.nan_to_num(apart, nan=64.0).sum(axis=-1).argmin(axis=1)]
        place[:, k] = np.take_along_axis(place[:, k], best[..., None], axis=1)
        name[:, k] = np.take_along_axis(name[:, k], best, axis=1)
        last = np.where(np.isfinite(place[:, k]), place[:, k], last)
    return DigitReading(place, name)


def middles(meta: dict[str, Any], side: int) -> Floats:
    """Compute where a clip's digits are at each frame, (time, digits, 2), from its KEY.json."""
    corners: Floats = np.moveaxis(np.array(meta["corners"], np.float64), 0, 1)
    return corners + side / 2


def _examples(index: ShardIndex) -> tuple[Tensor, Tensor, Tensor]:
    """Collect frames, the digits in each, and where their middles are."""
    side = index.dataset["truth"]["digit_side"]
    frames, names, positions = [], [], []
    for part in batches(evenly(CLIPS, len(index)), 1, "clips to learn to read"):
        clip = index.read(part.start)
        every = slice(part.start % 4, None, 4)  # neighbouring frames say the same
        place = middles(clip.meta, side)[every]
        frames.append(clip.video[every])
        positions.append(place)
        names.append(np.tile([int(digit) for digit in clip.meta["label"]], (len(place), 1)))
    parts = (np.concatenate(frames), np.concatenate(names), np.float32(np.concatenate(positions)))
    images, named, placed = (torch.from_numpy(part) for part in parts)
    return images, named, placed
