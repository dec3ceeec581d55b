"""Futures of Stochastic Moving MNIST read by template: do two digits stay two, and stay digits.

    python benchmarks/moving_digits.py RUN --data data/smmnist --output runs/digits.json

From five frames of held-out clips, twenty are predicted K times. A digit's template is the least of
its crops over the clip, so free of the other's overlaps. In each predicted frame it is looked for
at every whole pixel: its place is where least of it is left unexplained, and the share explained is
1 - |x - template|^2 / |template|^2 there. A digit of which less than a tenth is explained counts as
lost and stands at the middle. Intervals are 95 %, by bootstrap over clips.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdevid import export
from sdevid.data import stream
from sdevid.data.shards import open_shards
from sdevid.evaluate.digits import templates
from sdevid.evaluate.statistics.energy import energy_score
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.types import as_frames

SEEN, AHEAD, DIGIT = 5, 20, 28
SHOWN = (0, 1, 2, 3, 5, 8, 10, 12, 15, 19)


def sharpness(frames: Tensor) -> float:
    """Compute the mean squared difference of neighbouring pixels."""
    return float(frames.diff(dim=-1).square().mean() + frames.diff(dim=-2).square().mean())


def scores(futures: Tensor, real: Tensor, digits: Tensor, corners: Floats) -> dict[str, float]:
    """Score futures (K, 20, 64, 64) of one clip."""
    many = len(futures)
    found = templates.find(futures.flatten(0, 1), digits)
    place, share = found.place.reshape(many, AHEAD, 4), found.explained.reshape(many, AHEAD, 2)
    truth = corners[SEEN : SEEN + AHEAD].reshape(AHEAD, 4) + DIGIT / 2
    result = {
        "explained +1..3": share[:, :3].mean(),
        "explained +8..10": share[:, 7:10].mean(),
        "explained +18..20": share[:, 17:].mean(),
        "digits lost": (share < templates.LOST).mean(),
        "brightness of real": futures.mean() / real.mean(),
        "sharpness of real": sharpness(futures) / sharpness(real),
        "sharpness of real +16..20": sharpness(futures[:, 15:]) / sharpness(real[15:]),
    }
    psnr = (-10 * (futures - real).square().mean((2, 3)).clamp(min=1e-10).log10()).mean(1)
    result |= {"PSNR of all, dB": psnr.mean(), "PSNR of the best, dB": psnr.max()}
    if many > 1:
        energy = energy_score(place, truth)
        result["energy score of places"] = energy.mean()
    return {name: float(value) for name, value in result.items()}


def interval(values: list[float]) -> list[float]:
    """Return the mean and its 95 % interval over clips."""
    array, rng = np.array(values), np.random.default_rng(0)
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(1000)]
    return [float(array.mean()), *map(float, np.quantile(means, (0.025, 0.975)))]


class Futures(NamedTuple):
    """One clip and its futures."""

    clip: Tensor  # (25, 64, 64)
    futures: Tensor  # (K, 20, 64, 64)
    corners: Floats  # (25, 2, 2) of its digits, (x, y)


@torch.no_grad()
def drawn(options: argparse.Namespace) -> Iterator[Futures]:
    """Draw the futures of each held-out clip."""
    model, config = export.load(options.run)
    whole = config.model_copy(update={"sequence_length": SEEN + AHEAD})
    index, many = open_shards(options.data, options.split), options.futures
    for number in range(options.clips):
        batch = stream.fixed(index, whole, range(number, number + 1))
        frames = as_frames(batch.video)
        seen = Conditioning(
            frames=frames[:, :SEEN].expand(many, -1, -1, -1, -1),
            frame_ticks=batch.ticks[:, :SEEN].expand(many, -1),
        )
        ticks = batch.ticks[:, SEEN:].expand(many, -1)
        futures = model.generate(ticks, SamplerConfig(seed=number), seen).frames
        corners = np.swapaxes(np.array(index.read(number).meta["corners"], float), 0, 1)
        yield Futures(frames[0, :, 0], futures[:, :, 0].clamp(0, 1), corners)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--futures", type=int, default=32)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Score a run's futures and those of the real clips, and draw some."""
    options, started = arguments(), time.process_time()
    table: dict[str, dict[str, list[float]]] = {"real": {}, "futures": {}}
    rows = []
    for number, (clip, futures, corners) in enumerate(drawn(options)):
        real, digits = clip[SEEN:], templates.cut_at(clip, corners.astype(int), DIGIT)
        for name, video in (("real", real[None]), ("futures", futures)):
            for key, value in scores(video, real, digits, corners).items():
                table[name].setdefault(key, []).append(value)
        if number % (options.clips // 4) == 0:
            for video in (real, *futures[:3]):
                rows.append(torch.cat([clip[SEEN - 1], *(video[k] for k in SHOWN)], dim=1))
    results = {name: {k: interval(v) for k, v in part.items()} for name, part in table.items()}
    results["processor_seconds"] = time.process_time() - started
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    picture = (torch.cat(rows) * 255).to(torch.uint8).numpy()
    Image.fromarray(picture).save(options.output.with_suffix(".png"))
    for name in ("real", "futures"):
        for key, (mean, low, high) in results[name].items():
            print(f"{name:8s} {key:28s} {mean:8.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
