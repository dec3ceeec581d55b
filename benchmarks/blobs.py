"""Drawn blobs whose law is known: what a model of particles holds of it, blob by blob.

    python benchmarks/blobs.py RUN --data data/ou --output runs/ou/blobs.json

DATA is drawn by `sdevid shards --dataset brownian`, which keeps each blob's places. Of held-out
clips a model reads the first frame alone; the present particle nearest to a blob, within NEAR
pixels, stands for it, and SAMPLES futures of it are drawn at the clip's frames. So model and truth
are compared without a tracker:

    slope      of the drift h on the place along the same axis, 1/s, at the blobs' own places
    error      root mean square of h less the true drift, over that of the true drift, there
    mean       of h, pixel/s, there
    kept       slope of the last place on the first one: OU keeps exp(-theta t)
    crossed    share of blobs on the other side of the middle after a time: a well's crossings
    variance   of displacements over one frame and over all of them, futures over blobs

Intervals are 95 %, by bootstrap over clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sdevid import export
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.data.synthetic import HALF_WIDTH, DoubleWell, OrnsteinUhlenbeck, named
from sdevid.models.particles.model import ParticleSDE
from sdevid.models.particles.path import solve_path
from sdevid.types import as_frames

NEAR, SAMPLES, RESAMPLES = 3.0, 8, 1000  # pixels between a particle and its blob; futures; draws
Floats = NDArray[np.float64]
Law = DoubleWell | OrnsteinUhlenbeck | None  # along one axis; None: no drift


class Compared(NamedTuple):
    """One clip's blobs that a particle stands for; places are in pixels from the middle."""

    real: Floats  # (frames, blobs, 2)
    drawn: Floats  # (samples, frames, blobs, 2)
    drift: Floats  # h of each blob's particle at the blob's own places, (frames, blobs, 2), pixel/s


def laws(index: ShardIndex) -> dict[str, Law]:
    """Read the true law along x and y from the data set's own account."""
    truth = index.dataset["truth"]["particles"]
    if truth["motion"] == "brownian":
        return {"x": None, "y": None}
    kinds = {"x": "double-well" if truth["motion"] == "double-well" else "ou", "y": "ou"}
    return {axis: named(kind, **truth[axis]) for axis, kind in kinds.items()}


@torch.no_grad()
def compare(model: ParticleSDE, video: Any, places: Floats, seed: int) -> Compared:
    """Draw futures of one clip's first frame, and read the drift where its blobs go."""
    frames = as_frames(torch.from_numpy(video[None, :1]))
    z, content = model.reader.observed(frames)
    conditions = model.law.conditions(content)
    at = model.layout.split(z)[0][0].numpy()
    absent = (content.logit[0, :, 0] < 0).numpy()
    apart = np.linalg.norm(at[:, None] - places[0], axis=-1) + np.where(absent, np.inf, 0)[:, None]
    stands, blobs = apart.argmin(0), np.nonzero(apart.min(0) < NEAR)[0]
    stands = stands[blobs]
    steps = len(places) - 1
    noise = torch.randn(
        (SAMPLES, steps, *model.noise_shape), generator=torch.Generator().manual_seed(seed)
    )
    many = content.repeated(SAMPLES)
    path = solve_path(
        model.law,
        z.repeat_interleave(SAMPLES, 0),
        model.law.conditions(many),
        torch.ones(SAMPLES, steps),
        noise,
        range(steps + 1),
    )
    drawn = model.layout.split(path.states)[0][:, :, stands].double().numpy()
    pulls = []
    for now in places:
        there = z.clone()
        there[0, stands, :2] = torch.from_numpy(now[blobs]).float()
        pulls.append(model.law.pull(there, conditions)[0, stands].double().numpy())
    middle = (video.shape[1] - 1) / 2
    drift = np.stack(pulls) / model.config.time_unit
    return Compared(places[:, blobs] - middle, drawn - middle, drift)


def slope(x: Floats, y: Floats) -> float:
    """Fit y by a + b x; return b."""
    return float(np.polyfit(x.ravel(), y.ravel(), 1)[0])


def interval(clips: list[Compared], figure: Callable[[list[Compared]], float]) -> list[float]:
    """Compute a figure of all clips, and its 95 % interval from clips drawn again."""
    rng = np.random.default_rng(0)
    again = [
        figure([clips[k] for k in rng.integers(len(clips), size=len(clips))])
        for _ in range(RESAMPLES)
    ]
    return [figure(clips), *np.quantile(again, (0.025, 0.975)).tolist()]


def joined(clips: list[Compared], part: str, axis: int) -> Floats:
    """Join one part of all clips along the blobs, along one axis: (..., frames, blobs)."""
    return np.concatenate([getattr(clip, part)[..., axis] for clip in clips], axis=-1)


def true_drift(law: Law, place: Floats) -> Floats:
    """Compute the true drift at places in pixels from the middle, pixel/s; frames of 64 pixels."""
    if law is None:
        return np.zeros_like(place)
    unit = 32 / HALF_WIDTH
    return unit * law.drift(place / unit)


def error(law: Law, place: Floats, drift: Floats) -> float:
    """Compute a drift's root mean square error, as a share of the true drift's unless that is 0."""
    true = true_drift(law, place)
    off = float(np.sqrt(np.mean((drift - true) ** 2)))
    return off / float(np.sqrt(np.mean(true**2))) if law is not None else off


def kept(place: Floats) -> float:
    """Fit the last place by the first one; (..., frames, blobs)."""
    return slope(place[..., 0, :], place[..., -1, :])


def crossed(place: Floats, frame: int) -> float:
    """Compute the share of blobs beyond the middle from where they began."""
    return float(np.mean(place[..., frame, :] * place[..., 0, :] < 0))


def moved(drawn: Floats, real: Floats, lag: int) -> float:
    """Compute the mean square displacement over `lag` frames of futures, over that of the blobs."""
    far = [np.mean((x[..., lag:, :] - x[..., :-lag, :]) ** 2) for x in (drawn, real)]
    return float(far[0] / far[1])


def figures(clips: list[Compared], law: Law, axis: int, fps: float) -> dict[str, Any]:
    """Compare model and truth along one axis."""

    def of(figure: Callable[..., float], *parts: str) -> list[float]:
        return interval(clips, lambda some: figure(*(joined(some, part, axis) for part in parts)))

    real = joined(clips, "real", axis)
    last = len(real) - 1
    result: dict[str, Any] = {
        "slope": of(slope, "real", "drift"),
        "true slope": slope(real, true_drift(law, real)),
        "error": of(partial(error, law), "real", "drift"),
        "mean": of(lambda drift: float(drift.mean()), "drift"),
    }
    for lag in (1, last):
        name = f"variance of {lag} frames"
        result[name] = of(partial(moved, lag=lag), "drawn", "real")
    for name, part in (("futures", "drawn"), ("blobs", "real")):
        result[f"kept, {name}"] = of(kept, part)
        for seconds in (1, 2, last / fps):
            at = partial(crossed, frame=round(seconds * fps))
            result[f"crossed in {seconds:g} s, {name}"] = of(at, part)
    return result


def main() -> None:
    """Compare a run with the blobs of held-out clips, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model_path", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model, config = export.load(options.model_path)
    assert isinstance(model, ParticleSDE)
    index = open_shards(options.data, options.split)
    clips = []
    for number in range(len(index)):
        clip = index.read(number)
        clips.append(compare(model, clip.video, np.array(clip.meta["places"]), number))
    clips = [clip for clip in clips if clip.real.shape[1]]
    along = laws(index)
    results = {
        axis: figures(clips, along[axis], number, config.fps) for number, axis in enumerate("xy")
    }
    results["blobs"] = sum(clip.real.shape[1] for clip in clips)
    for axis in "xy":
        for name, value in results[axis].items():
            shown = value if isinstance(value, list) else [value]
            print(axis, f"{name:28}", " ".join(f"{x:7.3f}" for x in shown))
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
