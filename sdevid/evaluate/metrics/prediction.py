"""Prediction from the first frames: the model beside two baselines, on held-out clips.

PSNR is of a clip's mean squared error over its predicted frames, averaged over clips. It is taken
of the mean of the samples, which is what it rewards; that of single samples is told apart: one
draw of a stochastic motion is rightly worse in PSNR than copying. Its peak is the largest grey
level, or the span of the data set's transform. SSIM is a frame's; of single samples it is that of
the first. What was not observed does not count. Energy scores are of the tracked position (or
radius) of the disc, where the video is drawn; a baseline is a point forecast.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.generation import ROWS, futures
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.training_mean import Mean, training_mean
from sdevid.evaluate.progress import batches
from sdevid.evaluate.sde_recovery.scene_tracker import SceneTracker
from sdevid.evaluate.statistics.contrast import centre_of_contrast
from sdevid.evaluate.statistics.energy import energy_score
from sdevid.evaluate.statistics.estimate import Estimate, Floats, finite, mean_over
from sdevid.evaluate.statistics.observed import Unit, Values, in_unit_range, last_observed
from sdevid.evaluate.statistics.paired import lead_by_frame
from sdevid.evaluate.statistics.quality import decibels, squared_error, structural_similarity
from sdevid.evaluate.table import plain
from sdevid.models.video_model import VideoModel
from sdevid.sample.write import Pixels, as_uint8, shown
from sdevid.types import Batch, as_frames

BASELINES = ("copy_last_frame", "mean_frame")
SCORED = {"psnr": ("mean_of_samples", 1.0), "energy_score": ("samples", -1.0)}  # 1: more is better
TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "energy_score": "energy score, units"}


@dataclass(frozen=True)
class Scores:
    """One measure of one forecast: (clips, predicted frames), and how a mean of it is read."""

    values: Floats
    reading: Callable[[Floats], Floats] = np.asarray

    def as_json(self) -> dict[str, object]:
        """Average by clip, with standard error, and at each frame ahead over all clips."""
        with warnings.catch_warnings():  # clips of which no predicted frame was observed
            warnings.simplefilter("ignore", RuntimeWarning)
            means_of_clips = np.nanmean(self.values, axis=1)
        by_clip: Estimate = mean_over(self.reading(means_of_clips))
        means = np.array([mean_over(column).mean for column in self.values.T])
        by_frame = [finite(value) for value in self.reading(means)]
        return by_clip.as_json() | {"by_frame": by_frame}


@dataclass(frozen=True)
class Example:
    """A clip and its prediction, for the eye."""

    clip: Pixels  # time, height, width, channels
    mean: Pixels  # of all samples, at the predicted frames
    samples: Pixels  # number, predicted frames, height, width, channels
    path: Floats  # time, (x, y): the clip's centre of contrast in pixels
    fan: Floats  # number, predicted frames, (x, y): that of every sample


def predict(
    model: VideoModel,
    index: ShardIndex,
    config: Config,
    clips: range,
    context: int,
    samples: int,
    seed: int,
    reference: Mean,
    tracker: SceneTracker | None,
    examples: int = 3,
) -> tuple[dict[str, dict[str, Scores]], list[Example]]:
    """Score every forecast by every measure; keep `examples` clips with their futures."""
    table: dict[tuple[str, str], list[Floats]] = defaultdict(list)
    pictures = []
    wanted = set(clips[:: max(1, len(clips) // examples)][:examples])
    for part in batches(clips, max(1, ROWS // samples), "prediction"):
        batch = stream.fixed(index, config, part)
        (drawn, mean, _), video = futures(model, batch, context, samples, seed), batch.values
        true = in_unit_range(video[:, context:])
        forecasts = _forecasts(drawn, mean, in_unit_range(video), context, reference)
        forecasts |= _through_autoencoder(model, batch, context)
        errors = {name: squared_error(frames, true) for name, frames in forecasts.items()}
        each = squared_error(in_unit_range(drawn), true[:, None])
        for name, values in (errors | {"one_sample": each.mean(axis=1)}).items():
            table["psnr", name].append(values)
        for name, frames in forecasts.items():
            table["ssim", name].append(structural_similarity(frames, true))
        if tracker is not None and reference.position is not None:
            energies = _energy(drawn, batch.pixels, context, reference.position, tracker)
            for name, values in energies.items():
                table["energy_score", name].append(values)
        for place, number in enumerate(part):
            if number in wanted:
                pictures.append(_example(video[place], mean[place], drawn[place]))
    scores: dict[str, dict[str, Scores]] = defaultdict(dict)
    for (measure, name), parts in table.items():
        values = np.concatenate(parts)
        scores[measure][name] = Scores(values, decibels) if measure == "psnr" else Scores(values)
    return dict(scores), pictures


def _example(clip: Values, mean: Floats, samples: Values) -> Example:
    drawn = as_uint8(samples)
    return Example(
        shown(clip), as_uint8(mean), drawn[:4], centre_of_contrast(clip), centre_of_contrast(drawn)
    )


def _forecasts(
    forecasts: Values, mean: Floats, video: Unit, context: int, reference: Mean
) -> dict[str, Any]:
    """Collect frames in [0, 1] that broadcast to the predicted ones; of the samples, the first."""
    return {
        "mean_of_samples": mean,
        "one_sample": in_unit_range(forecasts[:, 0]),
        "copy_last_frame": last_observed(video[:, :context]),
        "mean_frame": reference.frame,
    }


def _through_autoencoder(model: VideoModel, batch: Batch, context: int) -> dict[str, Floats]:
    """Pass the true frames through a model's frozen autoencoder; empty without one."""
    frames = as_frames(batch.video[:, context:]).to(next(model.parameters()).device)
    decoded = model.pictures.reconstructed(frames)
    if decoded is None:
        return {}
    return {"autoencoder": decoded.movedim(-3, -1).double().cpu().numpy()}


def _energy(
    forecasts: Values, video: Pixels, context: int, mean_position: Floats, tracker: SceneTracker
) -> dict[str, Floats]:
    true = tracker.place(video)
    samples = tracker.place(as_uint8(forecasts)).swapaxes(0, 1)
    future, last = true[:, context:], true[:, context - 1 : context]
    return {
        "samples": energy_score(samples, future),
        "copy_last_frame": energy_score(np.broadcast_to(last, future.shape)[None], future),
        "mean_frame": energy_score(np.broadcast_to(mean_position, future.shape)[None], future),
    }


def run(context: EvalContext) -> Results:
    """Score predictions of the evaluated clips; keep a few for the run page."""
    options = context.options
    scores, examples = predict(
        context.model,
        context.index,
        context.config,
        context.clips,
        options.context,
        options.samples,
        options.seed,
        training_mean(context.training, context.config, context.tracker),
        context.tracker,
    )
    if examples:
        context.pictures["clips"] = np.stack([one.clip for one in examples])
        context.pictures["means"] = np.stack([one.mean for one in examples])
        context.pictures["samples"] = np.stack([one.samples for one in examples])
        context.pictures["paths"] = np.stack([one.path for one in examples])
        context.pictures["fans"] = np.stack([one.fan for one in examples])
    entries = {
        measure: {name: score.as_json() for name, score in forecasts.items()}
        for measure, forecasts in scores.items()
    }
    sources = [context.index.clips[clip].source for clip in context.clips]
    for measure, name, sign in (
        ("psnr", "mean_of_samples", 1.0),
        ("energy_score", "samples", -1.0),
    ):
        if measure in scores:
            leads = _leads(scores[measure], name, sources, sign)
            entries[measure][name]["lead_by_frame"] = leads
    return {"prediction": entries}


def _leads(
    forecasts: dict[str, Scores], name: str, sources: list[str], sign: float
) -> list[dict[str, object]]:
    """Estimate at each frame how far a forecast is ahead of the better baseline, over videos."""
    own, others = forecasts[name], [forecasts[one].values for one in BASELINES]
    leads = lead_by_frame(own.values, others, sources, lambda mean: sign * own.reading(mean))
    return [dict(lead.as_json()) for lead in leads]


def rows(results: Results) -> Iterator[Row]:
    """Yield every forecast by every score."""
    protocol = results["protocol"]
    for score, forecasts in results.get("prediction", {}).items():
        section = (
            f"Prediction from {protocol['context']} frames, {protocol['samples']} samples: "
            f"{TITLES.get(score, plain(score))}"
        )
        for name, entry in forecasts.items():
            yield Row(section, plain(name), entry)


METRIC = Metric(
    name="prediction",
    summary=(
        "PSNR and SSIM of futures after `--context` frames beside two baselines and what a frozen "
        "autoencoder keeps; energy score of what moves"
    ),
    run=run,
    rows=rows,
)
