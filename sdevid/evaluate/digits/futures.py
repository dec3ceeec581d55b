"""Stochastic Moving MNIST by the protocol of SRVP, and what it leaves out.

Five frames are given and all others of a clip predicted, twenty of twenty-five. Of K futures PSNR
and SSIM, means over the frames, are those of the best one (Franceschi et al. 2020). That rewards
wide guesses and is no proper score, so beside it: the energy score of the digits' places, whether
a digit stays itself, and whether it keeps its speed between walls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.digits import templates
from sdevid.evaluate.digits.reader import DigitReader, followed, middles, read, train_reader
from sdevid.evaluate.generation import futures
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.energy import energy_score
from sdevid.evaluate.statistics.estimate import Floats, finite, mean_over
from sdevid.evaluate.statistics.quality import decibels, squared_error, structural_similarity
from sdevid.evaluate.table import short

FRAMES = 25  # of a clip, at most
READ = 32  # futures that are read, of the K
_TURN = np.cos(np.pi / 4)  # a larger turn between two steps is a bounce


def evaluate(context: EvalContext) -> dict[str, Any]:
    """Score futures of the evaluated clips by the protocol and by the digits read off them."""
    truth = context.index.dataset["truth"]
    options, config = context.options, context.config
    observed, best_of = options.context, options.best_of
    length = min(FRAMES, *(context.index.clips[number].num_frames for number in context.clips))
    whole = config.model_copy(update={"sequence_length": length})
    reader = train_reader(context.training, config.frame_size, config.channels, context.seed)
    by_score: dict[str, list[Floats]] = {}
    for part in batches(context.clips, 1, f"best of {best_of}"):
        batch = stream.fixed(context.index, whole, part)
        meta = context.index.read(part.start).meta
        first = stream.first_frame(context.index, whole, part.start)
        true = middles(meta, truth["digit_side"])[first : first + length]
        samples = futures(context.model, batch, observed, best_of, context.seed).samples[0]
        real = batch.pixels[0, observed:]
        scores = best_and_mean(samples, real) | _read_scores(
            reader, samples[:READ], real, true, observed, meta, truth
        )
        scores |= template_scores(samples[:READ], batch.pixels[0], true, observed, truth)
        for name, value in scores.items():
            by_score.setdefault(name, []).append(value)
    return {
        "generator": truth["generator"],
        "best_of": best_of,
        "context": observed,
        "predicted": length - observed,
        "clips": len(context.clips),
        "futures_read": min(READ, best_of),
        "scores": {name: _entry(np.stack(values)) for name, values in by_score.items()},
    }


def best_and_mean(samples: Any, real: Any) -> dict[str, Floats]:
    """Score futures (K, time, height, width, channels): the best of K, and the mean of all."""
    psnr = decibels(squared_error(samples / np.float32(255), real / 255)).mean(axis=1)
    ssim = structural_similarity(samples / np.float32(255), real / 255).mean(axis=1)
    return {
        "psnr_best": psnr.max(),
        "ssim_best": ssim.max(),
        "psnr_mean": psnr.mean(),
        "ssim_mean": ssim.mean(),
    }


def _read_scores(
    reader: DigitReader,
    samples: Any,
    real: Any,
    true: Floats,
    observed: int,
    meta: dict[str, Any],
    truth: dict[str, Any],
) -> dict[str, Floats]:
    """Read digits off futures and off the clip itself; score both, by frame or as one number."""
    digits, frames = true.shape[1], len(real)
    names = np.array([int(digit) for digit in meta["label"]])
    every = np.concatenate([real[None], samples])
    readings = read(reader, every.reshape(-1, *every.shape[2:]), digits, truth["frame_side"])
    starts = np.repeat(true[None, observed - 1], len(every), axis=0)
    paths = followed(readings, starts, frames)
    itself = np.where(np.isfinite(paths.name), paths.name == names, np.nan)
    joint = paths.place.reshape(len(every), frames, -1)
    error = np.linalg.norm(paths.place[0] - true[observed:], axis=-1)
    speed, change = speeds(paths.place)
    return {
        "energy_score": energy_score(joint[1:], true[observed:].reshape(frames, -1)),
        "identity": _mean(itself[1:], (0, 2)),
        "identity_real": _mean(itself[:1], (0, 2)),
        "lost": np.isnan(paths.place[1:, ..., 0]).mean(),
        "lost_real": np.isnan(paths.place[0, ..., 0]).mean(),
        "reader_error": _mean(error, (0, 1)),
        "speed": _mean(speed[1:], (0, 1, 2)),
        "speed_real": _mean(speed[:1], (0, 1, 2)),
        "speed_change": _mean(change[1:], (0, 1, 2)),
        "speed_change_real": _mean(change[:1], (0, 1, 2)),
    }


def template_scores(
    samples: Any, clip: Any, true: Floats, observed: int, truth: dict[str, Any]
) -> dict[str, Floats]:
    """Score futures of a clip by its own digits as templates, and by how bright and sharp they are.

    By frame: the energy score of the digits' places, the share of a digit that is there, and means
    over the real frame's.
    """
    side, frame_side = truth["digit_side"], truth["frame_side"]
    digits = templates.cut(clip, true, side, frame_side)
    members, frames = samples.shape[:2]
    drawn = templates.fit(samples.reshape(-1, *samples.shape[2:]), digits, frame_side)
    place = drawn.place.reshape(members, frames, -1)
    here = templates.fit(clip[observed:], digits, frame_side).explained
    return {
        "place_energy": energy_score(place, true[observed:].reshape(frames, -1)),
        "explained": drawn.explained.reshape(members, frames, -1).mean(axis=(0, 2)),
        "explained_real": here.mean(axis=1),
        "brightness": _share(samples.mean(axis=(0, 2, 3, 4)), clip[observed:].mean(axis=(1, 2, 3))),
        "sharpness": _share(_sharpness(samples).mean(axis=0), _sharpness(clip[observed:])),
    }


def _share(values: Floats, real: Floats) -> Floats:
    return values / np.where(real > 0, real, np.nan)


def _sharpness(frames: Any) -> Floats:
    """Compute the mean squared difference of neighbouring pixels of (..., height, width, 1)."""
    values = frames.astype(np.float32) / 255
    down, across = np.diff(values, axis=-3), np.diff(values, axis=-2)
    sharp: Floats = np.square(down).mean((-3, -2, -1)) + np.square(across).mean((-3, -2, -1))
    return sharp


def speeds(place: Floats) -> tuple[Floats, Floats]:
    """Compute speeds of (videos, frames, digits, 2), in pixels a step, and their changes.

    Two steps count as a pair, off walls, where the second turns by less than 45 degrees from the
    first; others are NaN.
    """
    step = np.diff(place, axis=1)
    speed = np.linalg.norm(step, axis=-1)
    along = (step[:, 1:] * step[:, :-1]).sum(axis=-1)
    straight = along > _TURN * speed[:, 1:] * speed[:, :-1]
    pair = (speed[:, 1:] + speed[:, :-1]) / 2
    change = np.abs(speed[:, 1:] - speed[:, :-1])
    return np.where(straight, pair, np.nan), np.where(straight, change, np.nan)


def _mean(values: Floats, axes: tuple[int, ...]) -> Floats:
    """Average over `axes`, leaving out NaN; NaN where nothing is left."""
    count = np.isfinite(values).sum(axis=axes)
    mean: Floats = np.nansum(values, axis=axes) / np.where(count > 0, count, np.nan)
    return mean


def _entry(values: Floats) -> dict[str, Any]:
    """Average over clips, and by frame where there are frames."""
    if values.ndim == 1:
        return mean_over(values).as_json()
    by_frame = [finite(mean_over(column).mean) for column in values.T]
    return mean_over(_mean(values, (1,))).as_json() | {"by_frame": by_frame}


TITLES = {
    "psnr_best": "PSNR of the best, dB",
    "ssim_best": "SSIM of the best",
    "psnr_mean": "PSNR of all, dB",
    "ssim_mean": "SSIM of all",
    "energy_score": "energy score of the places, pixels",
    "place_energy": "energy score of the places by templates, pixels",
    "explained": "share of a digit that is there, by templates",
    "brightness": "brightness over the real frame's",
    "sharpness": "sharpness over the real frame's",
    "identity": "digits read as themselves, share",
    "speed": "speed between walls, pixels a step",
    "speed_change": "its change from step to step",
    "lost": "digits not found, share",
    "reader_error": "the reader's error on real frames, pixels",
}


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: the clips must be of Stochastic Moving MNIST."""
    if "generator" in (context.truth or {}):
        other = context.options.fps is not None
        return "its protocol is at the rate of its clips; leave out --fps" if other else None
    return f"the shards are of {context.index.dataset.get('dataset')}, not of smmnist"


def run(context: EvalContext) -> Results:
    """Score the futures of the digits."""
    return {"digits": evaluate(context)}


def rows(results: Results) -> Iterator[Row]:
    """Yield the scores of generated video, with those of real video as notes."""
    if "digits" not in results:
        return
    entries = results["digits"]
    section = (
        f"Stochastic Moving MNIST, {entries['generator']}'s: {entries['context']} frames seen, "
        f"{entries['predicted']} predicted, {entries['clips']} clips, K = {entries['best_of']}"
    )
    scores = entries["scores"]
    for key, name in TITLES.items():
        real = scores.get(f"{key}_real")
        yield Row(section, name, scores[key], f"real {short(real)}" if real else "")


METRIC = Metric(
    name="digits",
    summary="Stochastic Moving MNIST by SRVP's protocol, best of `--best_of`",
    run=run,
    rows=rows,
    needs=needs,
    automatic=False,
)
