"""Perceptual distance of predicted frames from the observed ones, by the user's network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.generation import futures
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.networks import as_input, image_distance
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.estimate import Floats, mean_over
from sdevid.evaluate.statistics.observed import (
    Unit,
    Values,
    in_unit_range,
    last_observed,
    masked_like,
)

CLIPS, SAMPLES = 64, 4  # clips predicted, futures of each

Distance = Callable[[Tensor, Tensor], Any]


def needs(context: EvalContext) -> str | None:
    """Say why LPIPS cannot run, or None: --lpips must name a network."""
    is_set = context.options.lpips is not None
    return None if is_set else "no network is given for it by --lpips"


@lru_cache(maxsize=1)
def _network(context: EvalContext) -> Distance:
    assert context.options.lpips is not None
    return image_distance(context.options.lpips, context.config.frame_shape, context.device)


def prepare(context: EvalContext) -> None:
    """Try the network on two frames."""
    _network(context)


@torch.no_grad()
def run(context: EvalContext) -> Results:
    """Measure the distance of predicted from observed frames, of samples and of the last frame.

    What was not observed is black in both.
    """
    distance, observed = _network(context), context.options.context
    clips = evenly(min(CLIPS, len(context.clips)), len(context.index))
    samples, copied = [], []
    for part in batches(clips, 4, "LPIPS"):
        batch = stream.fixed(context.index, context.config, part)
        predicted = futures(context.model, batch, observed, SAMPLES, context.seed).samples
        real = in_unit_range(batch.values)
        outcome, last = real[:, observed:], last_observed(real[:, :observed])
        true = _frames(masked_like(outcome, outcome), context)

        def score(video: Unit, outcome: Unit = outcome, true: Tensor = true) -> Floats:
            frames = _frames(masked_like(video, outcome), context)
            return _by_clip(distance(frames, true), len(outcome))

        each = [score(in_unit_range(predicted[:, i])) for i in range(SAMPLES)]
        samples.append(np.mean(each, axis=0))
        copied.append(score(np.broadcast_to(last, outcome.shape)))
    return {
        "lpips": {
            "clips": len(clips),
            "samples": SAMPLES,
            "context": observed,
            "one_sample": mean_over(np.concatenate(samples)).as_json(),
            "copy_last_frame": mean_over(np.concatenate(copied)).as_json(),
        }
    }


def _frames(video: Values, context: EvalContext) -> Tensor:
    """Reshape videos to frames (clips * time, channels, height, width), [0, 1] as [-1, 1]."""
    frames = torch.from_numpy(np.ascontiguousarray(video)).to(context.device)
    return as_input(frames).transpose(1, 2).flatten(0, 1)


def _by_clip(distance: Tensor, clips: int) -> Floats:
    means: Floats = distance.double().cpu().numpy().reshape(clips, -1).mean(axis=1)
    return means


def rows(results: Results) -> Iterator[Row]:
    """Yield a sample's distance and the last frame's."""
    if "lpips" not in results:
        return
    entries = results["lpips"]
    section = f"LPIPS of frames predicted from {entries['context']}, {entries['clips']} clips"
    yield Row(section, f"one of {entries['samples']} samples", entries["one_sample"])
    yield Row(section, "copy last frame", entries["copy_last_frame"])


METRIC = Metric(
    name="lpips",
    summary="distance of predicted frames by a TorchScript LPIPS (`--lpips`)",
    run=run,
    rows=rows,
    needs=needs,
    prepare=prepare,
)
