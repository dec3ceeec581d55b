"""Prediction from the first frames: the model beside two baselines, on held-out clips.

PSNR is of a clip's mean squared error over its predicted frames, averaged over clips. It is taken
of the mean of the samples, which is what it rewards; that of single samples is told apart: one
draw of a stochastic motion is rightly worse in PSNR than copying. SSIM is a frame's; of single
samples it is that of the first. Energy scores are of
the tracked position (or radius) of the disc, where the video is drawn; a baseline is a point
forecast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.energy import energy_score
from sdevid.evaluate.measured import Floats, Measured, finite, mean_over
from sdevid.evaluate.observe import Observer
from sdevid.evaluate.progress import batches
from sdevid.evaluate.quality import decibels, squared_error, structural_similarity
from sdevid.evaluate.reference import Mean
from sdevid.models.video_model import VideoModel
from sdevid.sample.sampler import as_pixels
from sdevid.sample.write import Pixels
from sdevid.types import Batch, as_frames

ROWS = 64  # videos generated at once


@dataclass(frozen=True)
class Scores:
    """One measure of one forecast: (clips, predicted frames), and how a mean of it is read."""

    values: Floats
    reading: Callable[[Floats], Floats] = np.asarray

    def as_json(self) -> dict[str, object]:
        """Mean and standard error by clip, and the measure at each frame ahead over all clips."""
        by_clip: Measured = mean_over(self.reading(np.nanmean(self.values, axis=1)))
        means = np.array([mean_over(column).mean for column in self.values.T])
        by_frame = [finite(value) for value in self.reading(means)]
        return by_clip.as_json() | {"by_frame": by_frame}


@dataclass(frozen=True)
class Shown:
    """A clip and its prediction, for the eye."""

    clip: Pixels  # time, height, width, channels
    mean: Pixels  # of all samples, at the predicted frames
    samples: Pixels  # number, predicted frames, height, width, channels


@torch.no_grad()
def futures(
    model: VideoModel, batch: Batch, context: int, samples: int, seed: int
) -> tuple[Pixels, Floats]:
    """`samples` futures of each clip after its first `context` frames.

    Returns uint8 video (clips, samples, predicted, height, width, channels) and the mean over the
    samples in [0, 1].
    """
    device = next(model.parameters()).device
    serial = (batch.serial[:, None] * samples + torch.arange(samples)).flatten()
    given = as_frames(batch.video[:, :context]).repeat_interleave(samples, 0)
    ticks = batch.ticks.repeat_interleave(samples, 0)
    made = []
    for row in range(0, len(serial), ROWS):
        rows = slice(row, row + ROWS)
        made.append(
            model.sample(
                ticks[rows, context:].to(device),
                seed=seed,
                serial=serial[rows].to(device),
                context=given[rows].to(device),
                context_ticks=ticks[rows, :context].to(device),
            )
        )
    frames = torch.cat(made).reshape(-1, samples, *made[0].shape[1:])
    mean = frames.clamp(0, 1).mean(dim=1).movedim(-3, -1).double().cpu().numpy()
    return as_pixels(frames), mean


def predict(
    model: VideoModel,
    index: ShardIndex,
    clips: range,
    context: int,
    samples: int,
    seed: int,
    reference: Mean,
    observer: Observer | None,
    shown: int = 3,
) -> tuple[dict[str, dict[str, Scores]], list[Shown]]:
    """Scores by measure and forecast, and `shown` clips at even distances with their futures."""
    table: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    pictures = []
    wanted = set(clips[:: max(1, len(clips) // shown)][:shown])
    for part in batches(clips, max(1, ROWS // samples), "prediction"):
        batch = stream.fixed(index, model.config, part)
        made, mean = futures(model, batch, context, samples, seed)
        video = batch.video.numpy()
        true = video[:, context:] / 255
        forecasts = _forecasts(made, mean, video, context, reference)
        errors = {name: squared_error(frames, true) for name, frames in forecasts.items()}
        each = squared_error(made / np.float32(255), true[:, None])
        for name, values in (errors | {"one_sample": each.mean(axis=1)}).items():
            table["psnr", name].append(values)
        for name, frames in forecasts.items():
            table["ssim", name].append(structural_similarity(frames, true))
        if observer is not None and reference.position is not None:
            found = _energy(made, video, context, reference.position, observer)
            for name, values in found.items():
                table["energy_score", name].append(values)
        for place, number in enumerate(part):
            if number in wanted:
                middle = np.rint(255 * mean[place]).astype(np.uint8)
                pictures.append(Shown(video[place], middle, made[place, :4]))
    scores: dict[str, dict[str, Scores]] = defaultdict(dict)
    for (measure, name), parts in table.items():
        values = np.concatenate(parts)
        scores[measure][name] = Scores(values, decibels) if measure == "psnr" else Scores(values)
    return dict(scores), pictures


def _forecasts(
    made: Pixels, mean: Floats, video: Pixels, context: int, reference: Mean
) -> dict[str, Floats]:
    """Frames in [0, 1] that broadcast to the predicted ones; of the samples, the first."""
    return {
        "mean_of_samples": mean,
        "one_sample": made[:, 0] / 255,
        "copy_last_frame": video[:, context - 1 : context] / 255,
        "mean_frame": reference.frame,
    }


def _energy(
    made: Pixels, video: Pixels, context: int, mean_position: Floats, observer: Observer
) -> dict[str, Floats]:
    true = observer.place(video)
    samples = observer.place(made).swapaxes(0, 1)
    future, last = true[:, context:], true[:, context - 1 : context]
    return {
        "samples": energy_score(samples, future),
        "copy_last_frame": energy_score(np.broadcast_to(last, future.shape)[None], future),
        "mean_frame": energy_score(np.broadcast_to(mean_position, future.shape)[None], future),
    }
