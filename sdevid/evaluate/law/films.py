"""Real films beside their generated futures, tracked alike, at several frame rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.errors import UserError
from sdevid.evaluate.generation import continued
from sdevid.evaluate.law.estimators import FilmSums, film_sums, law_of, over_seeds
from sdevid.evaluate.law.tracking import FilmTracker
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values, in_unit_range
from sdevid.models.video_model import VideoModel

ROWS = 16
SHORTEST = 5  # places of a track that counts
RATE_TOLERANCE = 0.01


def compare(
    model: VideoModel,
    index: ShardIndex,
    clips: range,
    tracker: FilmTracker,
    context: int,
    rates: Sequence[float],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Estimate the law of real and of generated film at each of `rates`, in frames a second.

    `context` frames at the training rate are given; what is tracked begins at the last of them.
    The films may be at a multiple of the training rate. Real film is compared at the rates that
    divide its own. Raises UserError where the tracker finds nothing in real film.
    """
    stride, film = _read(model, index, clips)
    start = film[:, : context * stride : stride]
    last = (start.shape[1] - 1) * stride
    film_rate = stride * model.config.fps
    seconds = (film.shape[1] - 1 - last) / film_rate
    sources = [index.clips[clip].source for clip in clips]
    laws = []
    for fps in rates:
        frames = int(seconds * fps + 1e-6)
        if frames < SHORTEST:
            continue
        every = _divides(film_rate, fps)
        real = None if every is None else _tracked([film[:, last::every]], tracker)
        generated = []
        for seed in seeds:
            title = f"futures at {fps:g} a second"
            future = continued(model, start, frames, fps, seed, title)
            generated.append(_tracked([start[:, -1:], future], tracker))
        laws.append(_entry(fps, real, generated, sources))
    if not any(law["real"] and law["real"]["tracks"] for law in laws):
        raise UserError(
            f"the tracker finds nothing that lasts {SHORTEST} frames in {len(clips)} real clips; "
            "give another --threshold, --reach or --sign"
        )
    return laws


def _read(model: VideoModel, index: ShardIndex, clips: range) -> tuple[int, Values]:
    """Read whole films, and the number of their frames for one at the training rate."""
    entry = index.clips[clips[0]]
    stride = _divides(entry.fps, model.config.fps)
    if stride is None:
        raise UserError(
            f"the films are at {entry.fps:g} frames a second, which is no multiple of the model's "
            f"{model.config.fps:g}; cut them at one"
        )
    whole = model.config.model_copy(
        update={"sequence_length": entry.num_frames, "fps": entry.fps, "frame_strides": (1,)}
    )
    parts = batches(clips, ROWS, "real films")
    return stride, np.concatenate([stream.fixed(index, whole, part).values for part in parts])


def _entry(
    fps: float, real: list[FilmSums] | None, generated: list[list[FilmSums]], sources: list[str]
) -> dict[str, Any]:
    every = [film for films in generated for film in films]
    by_seed = [law_of(films, sources, 1 / fps) for films in generated]
    return {
        "fps": fps,
        "real": None if real is None else law_of(real, sources, 1 / fps),
        "generated": law_of(every, sources * len(generated), 1 / fps)
        | {
            "over_seeds": {
                key: over_seeds([law[key]["mean"] for law in by_seed])
                for key in ("diffusion", "exponent")
            }
        },
    }


def _tracked(parts: Sequence[Values], tracker: FilmTracker) -> list[FilmSums]:
    """Track films whose parts follow each other, each (films, time, height, width, channels)."""
    sums = []
    for film in np.concatenate([in_unit_range(part) for part in parts], axis=1):
        grey = _grey(film)
        tracks, counts = tracker.follow(grey)
        sums.append(film_sums(tracks, counts, grey.shape[1:], SHORTEST))
    return sums


def _grey(film: Values) -> Floats:
    """Average channels in [0, 1]; what was not observed takes the median, which shows nothing."""
    grey: Floats = film.mean(axis=-1, dtype=np.float64)
    for frame in grey:
        missing = np.isnan(frame)
        if missing.any():
            frame[missing] = 0.0 if missing.all() else np.median(frame[~missing])
    return grey


def _divides(rate: float, by: float) -> int | None:
    """Divide `rate` by `by`; None where the ratio is no whole number."""
    ratio = round(rate / by)
    return ratio if ratio >= 1 and abs(rate / by / ratio - 1) < RATE_TOLERANCE else None
