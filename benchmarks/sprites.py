"""Sprites that wander: their walk's law, their identity over 64 frames, and their prompts.

    python benchmarks/sprites.py RUN --data data/sprites --long data/long --output runs/sprites.json

DATA holds the clips that the model and a classifier are trained on, LONG films of held-out
characters, of at least SEEN + 64 frames. From SEEN frames of each, one future of 64 frames is
drawn. The walk is tracked alike in both: a figure's middle is the centroid of what differs from the
ground; the covariance of its steps over lags 1 to 8 frames is fitted by A exp(-lag / T), and
A / T is the velocity's diffusion g^2 / 2. The classifier, a small network on the crop around the
middle, reads skin, hair, top, trousers, and which way the figure faces (as its step says, where
that is clear). *Legs* is how much the lower third of that crop changes from frame to frame, and
*sharpness* how much the crop changes from pixel to pixel, both as means of absolute differences of
grey levels. Intervals are 95 %, by bootstrap over films.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from sdevid.data.shards import ShardIndex, open_shards
from sdevid.sample.video_sde import VideoSDE

SEEN, AHEAD, LAGS = 4, 64, 8
PARTS = ("skin", "hair", "top", "trousers")
FACES = ("left", "right", "up", "down")
LOOKS = r"a (?:figure with (.*) skin|green (orc)), (.*) hair, (.*) and (.*)"
CAPTION = re.compile(LOOKS + " wanders")
PATCH, STEPS, BATCH = 32, 1200, 32


def films(index: ShardIndex, frames: int) -> tuple[Tensor, list[str]]:
    """Read `frames` frames of every clip, uint8 (clips, time, height, width, channels)."""
    clips = [index.read(number) for number in range(len(index))]
    videos = torch.from_numpy(np.stack([clip.video[:frames] for clip in clips]))
    return videos, [str(clip.meta["caption"]) for clip in clips]


def middles(videos: Tensor) -> Tensor:
    """Compute each frame's centroid (x, y) of what differs from its median colour."""
    x = videos.float() / 255
    ground = x.flatten(-3, -2).median(-2).values[..., None, None, :]
    weight = ((x - ground).abs().sum(-1) > 0.1).float() + 1e-6
    axis = torch.arange(x.shape[-2]).float()
    total = weight.sum((-1, -2))
    across = (weight.sum(-2) * axis).sum(-1) / total
    return torch.stack([across, (weight.sum(-1) * axis).sum(-1) / total], dim=-1)


def cut(videos: Tensor, at: Tensor) -> Tensor:
    """Cut a patch around each whole-pixel middle, (n, channels, PATCH, PATCH)."""
    frames = functional.pad(
        videos.flatten(0, 1).movedim(-1, 1).float() / 255, [PATCH // 2] * 4, "replicate"
    )
    corner = at.flatten(0, 1).round().long()
    rows = [
        frame[:, y : y + PATCH, x : x + PATCH]
        for frame, (x, y) in zip(frames, corner.tolist(), strict=True)
    ]
    return torch.stack(rows)


def facing(at: Tensor, fps: float) -> Tensor:
    """Say which way each frame's step goes, an index of FACES; -1 where two ways are near."""
    step = torch.zeros_like(at)
    step[:, 1:-1] = (at[:, 2:] - at[:, :-2]) * fps / 2
    x, y = step.unbind(-1)
    way = torch.where(x.abs() > y.abs(), torch.where(x < 0, 0, 1), torch.where(y < 0, 2, 3))
    clear = (x.abs() - y.abs()).abs() > 4  # pixels a second
    return torch.where(clear, way, -1)


def words(captions: list[str]) -> list[tuple[str, ...]]:
    """Split each caption into its parts, in the order of PARTS."""
    found = []
    for caption in captions:
        match = CAPTION.match(caption)
        if match is None:
            raise SystemExit(f"not a caption of a sprite that wanders: {caption}")
        skin, orc, hair, top, trousers = match.groups()
        found.append((skin or orc, hair, top, trousers))
    return found


Network = TypeVar("Network", bound=nn.Module)


class Reader(nn.Module):
    """Network from patches to one row of logits for each part, and for the way it faces."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 24, 2), (24, 48, 2), (48, 64, 2)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1),
                nn.GroupNorm(4, outputs),
                nn.SiLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(128, size) for size in sizes)

    def forward(self, patches: Tensor) -> list[Tensor]:
        hidden = self.layers(patches - 0.4)
        return [head(hidden) for head in self.heads]


def trained_reader(
    make: Callable[[], Network], pictures: Tensor, targets: Tensor, batch: int = BATCH
) -> Network:
    """Train on pictures (n, _, rows, columns, ...) and targets (n, heads); -1 is not asked."""
    torch.manual_seed(0)
    reader, source = make(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    for step in range(STEPS):
        rows = torch.randint(len(pictures), (batch,), generator=source)
        jitter = torch.randint(-2, 3, (2,), generator=source).tolist()
        logits = reader(pictures[rows].roll(jitter, (2, 3)))
        losses = [
            functional.cross_entropy(one, targets[rows, head], ignore_index=-1)
            for head, one in enumerate(logits)
        ]
        optimizer.zero_grad()
        torch.stack(losses).nansum().backward()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 2 * (1 - step / STEPS))
        optimizer.step()
    return reader.eval()


def correct(reader: Reader, videos: Tensor, targets: Tensor, fps: float) -> Any:
    """Read every frame: (films, time, parts and way), 1 right, 0 wrong, NaN where nothing is asked.

    `targets` (films, parts) are the same in every frame; the way is that of the film's own steps.
    """
    at = middles(videos)
    with torch.no_grad():
        logits = reader(cut(videos, at))
    asked = torch.cat(
        [targets[:, None].expand(-1, videos.shape[1], -1), facing(at, fps)[..., None]], dim=-1
    )
    chosen = torch.stack([one.argmax(-1) for one in logits], dim=-1).view(asked.shape)
    right = (chosen == asked).double()
    return torch.where(asked >= 0, right, torch.nan).numpy()


def walk(at: Any, fps: float) -> tuple[float, float]:
    """Fit OU time (s) and the velocity's diffusion (pixel^2/s^3) to (films, time, 2)."""
    velocity = np.diff(at, axis=1) * fps
    lags = np.arange(1, LAGS + 1)
    covariance = np.array([(velocity[:, lag:] * velocity[:, :-lag]).mean() for lag in lags])
    best = (np.inf, np.nan, np.nan)
    for span in np.geomspace(0.1, 10, 400):
        curve = np.exp(-lags / fps / span)
        height = (covariance @ curve) / (curve @ curve)
        best = min(best, (float(np.square(covariance - height * curve).sum()), span, height))
    return best[1], best[2] / best[1]


def changes(videos: Tensor) -> dict[str, list[float]]:
    """Measure the change of legs over time and of crops over pixels, in grey levels of 255."""
    crops = 255 * torch.unflatten(cut(videos, middles(videos)), 0, videos.shape[:2])
    legs = crops[..., 2 * PATCH // 3 :, :].diff(dim=1).abs().mean((1, 2, 3, 4)).numpy()
    across = crops.diff(dim=-1).abs().mean((1, 2, 3, 4)).numpy()
    figures = {"legs": legs, "sharpness": across}
    return {
        name: interval(lambda rows, each=each: each[rows].mean(), len(videos))
        for name, each in figures.items()
    }


def interval(figure: Any, films_count: int) -> list[float]:
    """Compute `figure` of all films (an index), and its 95 % interval."""
    rng = np.random.default_rng(0)
    draws = [figure(rng.integers(films_count, size=films_count)) for _ in range(300)]
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return [float(figure(slice(None))), float(low), float(high)]


def accuracies(right: Any, frame: int | slice) -> dict[str, list[float]]:
    """Average one frame's (or a slice's) readings: each part, all four parts, and the way."""
    part = right[:, frame] if isinstance(frame, slice) else right[:, frame : frame + 1]
    table = {
        name: interval(lambda rows, k=k: np.nanmean(part[rows, :, k]), len(right))
        for k, name in enumerate((*PARTS, "way"))
    }
    table["colours"] = interval(lambda rows: np.nanmean(part[rows, :, :4]), len(right))
    return table


class Vocabulary:
    """Numbers of the words of each part, in the order of PARTS."""

    def __init__(self, rows: list[tuple[str, ...]]) -> None:
        names = [sorted({row[k] for row in rows}) for k in range(len(PARTS))]
        self.index = [{name: i for i, name in enumerate(part)} for part in names]
        self.sizes = [len(part) for part in names]

    def numbers(self, rows: list[tuple[str, ...]]) -> Tensor:
        """Number each row's words, (rows, parts)."""
        return torch.tensor([[self.index[k][w] for k, w in enumerate(row)] for row in rows])


def read_training(data: Path, fps: float) -> tuple[Reader, Vocabulary]:
    """Train the classifier on the clips that the model was trained on."""
    videos, captions = films(open_shards(data, "train"), 16)
    vocabulary, at = Vocabulary(words(captions)), middles(videos)
    parts = vocabulary.numbers(words(captions))[:, None].expand(-1, videos.shape[1], -1)
    targets = torch.cat([parts, facing(at, fps)[..., None]], dim=-1)
    sizes = [*vocabulary.sizes, len(FACES)]
    reader = trained_reader(lambda: Reader(sizes), cut(videos, at), targets.flatten(0, 1))
    return reader, vocabulary


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--long", type=Path, required=True)
    parser.add_argument("--split", default="val", help="of LONG")
    parser.add_argument("--films", type=int, default=64)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def measured(reader: Reader, video: Tensor, asked: Tensor, fps: float) -> dict[str, Any]:
    """Read the walk and the identity off films of AHEAD frames."""
    right, at = correct(reader, video, asked, fps), middles(video).numpy()
    count = len(video)
    return {
        "OU time, s": interval(lambda rows: walk(at[rows], fps)[0], count),
        "diffusion of the velocity, pixel^2/s^3": interval(
            lambda rows: walk(at[rows], fps)[1], count
        ),
        **changes(video),
        "first frame": accuracies(right, 0),
        "last frame": accuracies(right, AHEAD - 1),
        "all frames": accuracies(right, slice(None)),
    }


def main() -> None:
    """Measure a run, write the table as JSON, and draw some films."""
    options, started = arguments(), time.process_time()
    model = VideoSDE.from_pretrained(options.run, device="cpu")
    fps = model.config.fps
    reader, vocabulary = read_training(options.data, fps)
    real, prompts = films(open_shards(options.long, options.split), SEEN + AHEAD)
    real, prompts = real[: options.films], prompts[: options.films]
    asked = vocabulary.numbers(words(prompts))
    futures = joined(
        model.predict(film[:SEEN].numpy(), num_frames=SEEN + AHEAD, seed=k)
        for k, film in enumerate(real)
    )
    prompted = joined(
        model.sample(1, prompt=text, num_frames=16, seed=k) for k, text in enumerate(prompts)
    )
    results: dict[str, Any] = {"films": len(real)}
    for name, video in (("real", real), ("futures", futures)):
        results[name] = measured(reader, video[:, SEEN:], asked, fps)
    right = correct(reader, prompted, asked, fps)
    results["prompted"] = {"all frames": accuracies(right, slice(None))}
    results["processor_seconds"] = time.process_time() - started
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    show(real, futures, prompted, model, options.output.with_suffix(".png"))
    print(json.dumps(results, indent=1))


def joined(videos: Iterable[Any]) -> Tensor:
    """Join arrays of videos."""
    return torch.from_numpy(np.concatenate(list(videos)))


def show(real: Tensor, futures: Tensor, prompted: Tensor, model: VideoSDE, path: Path) -> None:
    """Draw three films, three futures of each, and four prompted ones."""
    ahead = [
        SEEN - 1,
        SEEN,
        SEEN + 3,
        SEEN + 7,
        SEEN + 15,
        SEEN + 23,
        SEEN + 31,
        SEEN + 47,
        SEEN + 63,
    ]
    rows = []
    for k in range(3):
        more = model.predict(
            real[k, :SEEN].numpy(), num_samples=2, num_frames=SEEN + AHEAD, seed=100 + k
        )
        for film in (real[k], futures[k], *torch.from_numpy(more)):
            rows.append(torch.cat([film[at] for at in ahead], dim=1))
    for film in prompted[:4]:
        rows.append(torch.cat([film[at] for at in (0, 1, 2, 3, 5, 7, 9, 12, 15)], dim=1))
    Image.fromarray(torch.cat(rows).numpy()).save(path)


if __name__ == "__main__":
    main()
