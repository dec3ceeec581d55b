"""Stochastic Moving MNIST by the protocol of SRVP, and what it leaves out.

Five frames are seen and all others of a clip predicted, twenty of twenty-five. Of K futures PSNR
and SSIM, means over the frames, are those of the best one (Franceschi et al. 2020). That rewards
wide guesses and is no proper score, so beside it: the energy score of the digits' places, whether
a digit stays itself, and whether it keeps its speed between walls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate import reader as reading
from sdevid.evaluate.energy import energy_score
from sdevid.evaluate.measured import Floats, finite, mean_over
from sdevid.evaluate.prediction import futures
from sdevid.evaluate.progress import batches
from sdevid.evaluate.quality import decibels, squared_error, structural_similarity
from sdevid.evaluate.reader import Reader, followed, middles, read
from sdevid.evaluate.subject import Subject

FRAMES = 25  # of a clip, at most
READ = 32  # futures that are read, of the K
_TURN = np.cos(np.pi / 4)  # a larger turn between two steps is a bounce


def protocol(subject: Subject, context: int, best_of: int) -> dict[str, Any]:
    """All of it, over `subject.clips`."""
    truth = subject.index.dataset["truth"]
    config = subject.config
    length = min(FRAMES, *(subject.index.clips[number].num_frames for number in subject.clips))
    whole = config.model_copy(update={"sequence_length": length})
    reader = reading.trained(subject.training, config.frame_size, config.channels, subject.seed)
    found: dict[str, list[Floats]] = {}
    for part in batches(subject.clips, 1, f"best of {best_of}"):
        batch = stream.fixed(subject.index, whole, part)
        said = subject.index.read(part.start).meta
        first = stream.first_frame(subject.index, whole, part.start)
        true = middles(said, truth["digit_side"])[first : first + length]
        made, _ = futures(subject.model, batch, context, best_of, subject.seed)
        real = batch.video.numpy()[0, context:]
        scores = _best(made[0], real) | _read(
            reader, made[0, :READ], real, true, context, said, truth
        )
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    return {
        "generator": truth["generator"],
        "best_of": best_of,
        "context": context,
        "predicted": length - context,
        "clips": len(subject.clips),
        "futures_read": min(READ, best_of),
        "scores": {name: _told(np.stack(values)) for name, values in found.items()},
    }


def _best(made: Any, real: Any) -> dict[str, Floats]:
    """Of futures (K, time, height, width, channels): the best, and the mean of all."""
    psnr = decibels(squared_error(made / np.float32(255), real / 255)).mean(axis=1)
    ssim = structural_similarity(made / np.float32(255), real / 255).mean(axis=1)
    return {
        "psnr_best": psnr.max(),
        "ssim_best": ssim.max(),
        "psnr_mean": psnr.mean(),
        "ssim_mean": ssim.mean(),
    }


def _read(
    reader: Reader,
    made: Any,
    real: Any,
    true: Floats,
    context: int,
    said: dict[str, Any],
    truth: dict[str, Any],
) -> dict[str, Floats]:
    """What the reader says of futures and of the clip itself, by frame or as one number."""
    digits, frames = true.shape[1], len(real)
    names = np.array([int(digit) for digit in said["label"]])
    every = np.concatenate([real[None], made])
    seen = read(reader, every.reshape(-1, *every.shape[2:]), digits, truth["frame_side"])
    starts = np.repeat(true[None, context - 1], len(every), axis=0)
    paths = followed(seen, starts, frames)
    itself = np.where(np.isfinite(paths.name), paths.name == names, np.nan)
    joint = paths.place.reshape(len(every), frames, -1)
    error = np.linalg.norm(paths.place[0] - true[context:], axis=-1)
    speed, change = _speeds(paths.place)
    return {
        "energy_score": energy_score(joint[1:], true[context:].reshape(frames, -1)),
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


def _speeds(place: Floats) -> tuple[Floats, Floats]:
    """Pixels a step of (videos, frames, digits, 2), and their change from step to step off walls.

    Two steps belong together where the second turns by less than 45 degrees from the first; others
    are NaN.
    """
    step = np.diff(place, axis=1)
    speed = np.linalg.norm(step, axis=-1)
    along = (step[:, 1:] * step[:, :-1]).sum(axis=-1)
    straight = along > _TURN * speed[:, 1:] * speed[:, :-1]
    pair = (speed[:, 1:] + speed[:, :-1]) / 2
    change = np.abs(speed[:, 1:] - speed[:, :-1])
    return np.where(straight, pair, np.nan), np.where(straight, change, np.nan)


def _mean(values: Floats, axes: tuple[int, ...]) -> Floats:
    """Over what is not NaN; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=axes)
    mean: Floats = np.nansum(values, axis=axes) / np.where(count > 0, count, np.nan)
    return mean


def _told(values: Floats) -> dict[str, Any]:
    """By clip, and by frame where there are frames."""
    if values.ndim == 1:
        return mean_over(values).as_json()
    by_frame = [finite(mean_over(column).mean) for column in values.T]
    return mean_over(_mean(values, (1,))).as_json() | {"by_frame": by_frame}
