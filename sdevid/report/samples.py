"""The page's section on samples over training, playing beside real video."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdevid.errors import UserError
from sdevid.report.record import Record, arrays
from sdevid.sample.film import film

FOLDER = "training_samples"
MOST = 6  # checkpoints shown, the newest among them
SIDE = 48  # least side of a moving picture, in pixels
COLUMNS = 2


class ShownSamples(NamedTuple):
    """Videos (number, time, height, width, channels) of one checkpoint, or real ones."""

    videos: NDArray[np.uint8]
    fps: float
    caption: str


def over_training(run: Record) -> str:
    """Lay out samples of up to `MOST` checkpoints, oldest first, and real video.

    Empty without any.
    """
    paths = files(run.folder)
    chosen = [paths[k] for k in _evenly(len(paths))]
    records = [one for one in map(_read, chosen) if one is not None]
    if not records:
        return ""
    real = _read(run.folder / FOLDER / "real.npz")
    shown = "".join(_figure(one) for one in [*([real] if real else []), *records])
    return (
        "<h2>Samples over training</h2><p>The same seed at each checkpoint, by the averaged "
        f'weights; real video first.</p><div class="reel">{shown}</div>'
    )


def files(folder: Path) -> list[Path]:
    """List the files of samples in a run folder, by step."""
    by_name = {}
    for path in (folder / FOLDER).glob("step_*.npz"):
        number = path.stem.removeprefix("step_")
        if number.isdecimal():
            by_name[int(number)] = path
    return [by_name[step] for step in sorted(by_name)]


def _evenly(count: int) -> list[int]:
    return sorted({round(k) for k in np.linspace(0, count - 1, min(MOST, count))}) if count else []


def _read(path: Path) -> ShownSamples | None:
    """Read one file of samples; None where it is missing, or is being written."""
    try:
        held = arrays(path)
        caption = "Real"
        if "step" in held:
            step, clips, seed = (int(held[name]) for name in ("step", "clips", "seed"))
            caption = f"Step {step:,}, clip {clips:,}, seed {seed}"
        return ShownSamples(held["generated"], float(held["fps"]), caption)
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _figure(one: ShownSamples) -> str:
    shown = film(one.videos, one.fps, COLUMNS, SIDE, one.caption)
    return f"<figure>{shown}<figcaption>{one.caption}</figcaption></figure>"
