"""The frames between given ones, as an ensemble: a coarse film made fine, with honest spread."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sdevid.data import source_units, stream
from sdevid.data.source_units import SourceUnits
from sdevid.evaluate import generation
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.ensembles import baselines
from sdevid.evaluate.ensembles.baselines import Case, Field, Forecast, advected, flow_of
from sdevid.evaluate.ensembles.futures import forecast_entries, model_forecasts, score_rows
from sdevid.evaluate.ensembles.noise_growth import Ensemble, with_growth
from sdevid.evaluate.ensembles.observation_noise import ObservationNoise, observation_noise
from sdevid.evaluate.ensembles.scores import BySource, Totals, clip_totals
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.observed import Values
from sdevid.models.protocols import Likelihood
from sdevid.types import Batch

CLIPS = 64  # at most


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: the model must take frames ahead, and fill an ensemble."""
    options, frames = context.options, context.config.sequence_length
    if not context.config.observation.ahead:
        return (
            "the model was trained to go on from initial frames alone "
            "(observation.ends_fraction and keyframes_fraction are 0)"
        )
    if options.every is not None and not 2 <= options.every <= frames - 1:
        return f"--every is {options.every}, but must be from 2 to {frames - 1}"
    if frames < 3:
        return f"clips of {frames} frames have none between their ends"
    one = options.samples < 2
    return "an ensemble of one has no spread; give --samples 2 or more" if one else None


def run(context: EvalContext) -> Results:
    """Score the frames between, by their place in the gap, beside simple baselines."""
    options, config = context.options, context.config
    every = options.every or config.sequence_length - 1
    clips = evenly(min(CLIPS, len(context.clips)), len(context.index))
    units = source_units.parse(options.values, context.index.dataset)
    noise = observation_noise(context)
    noise = with_growth(context, noise, partial(_ensemble, context, every))
    totals: dict[str, list[Totals]] = {}
    for part in batches(clips, 1, "frames between"):
        for name, scored in _clip(context, part, every, units, noise).items():
            totals.setdefault(name, []).append(scored)
    sources = [context.index.clips[clip].source for clip in clips]
    return {
        "between": {
            "clips": len(clips),
            "sources": len(set(sources)),
            "members": options.samples,
            "every": every,
            "unit": units.unit,
            "frame_interval": 1 / config.fps,
            "observation_noise": noise.record,
            "forecasts": {
                name: forecast_entries(BySource(each, sources), config.channels, ())
                for name, each in totals.items()
            },
        }
    }


def _clip(
    context: EvalContext, clip: range, every: int, units: SourceUnits, noise: ObservationNoise
) -> dict[str, Totals]:
    """Sum the scores of one clip by place in the gap, over all whole gaps."""
    options = context.options
    batch = stream.fixed(context.index, context.config, clip)
    video = batch.values[0]
    indices, inner = _places(len(video), every)
    decoded, drawn = generation.between(
        context.model, batch, indices, inner, options.samples, context.seed, noise.likelihood
    )
    observed = units.values(video[inner])
    seed = context.seed + clip.start
    past = baselines.past_clips(context)
    case = Case(video[:1], len(inner), options.samples, units, past, seed)
    ends = units.values(video[indices])
    share = np.array([k % every / every for k in inner], np.float32)[:, None, None, None]
    gap = np.array([k // every for k in inner])
    line = (1 - share) * ends[gap] + share * ends[gap + 1]
    flow = flow_interpolation(video[indices], ends, gap, share.ravel())
    forecasts = model_forecasts(units, decoded, drawn) | {
        "linear_interpolation": Forecast(line[None], "point"),
        "optical_flow_interpolation": Forecast(flow[None], "point"),
        "frame_before": Forecast(ends[gap][None], "point"),
        "climatology": baselines.climatology(case),
    }
    return {
        name: _by_place(forecast, observed, every - 1, seed) for name, forecast in forecasts.items()
    }


def _places(frames: int, every: int) -> tuple[list[int], list[int]]:
    """List the frames of a clip that are given, and those between them."""
    indices = list(range(0, frames, every))
    return indices, [k for k in range(indices[-1]) if k % every]


def _ensemble(
    context: EvalContext, every: int, batch: Batch, members: int, likelihood: Likelihood
) -> Ensemble:
    """Fill the gaps of one clip by members drawn from `likelihood`."""
    indices, inner = _places(batch.video.shape[1], every)
    _, drawn = generation.between(
        context.model, batch, indices, inner, members, context.seed, likelihood
    )
    assert drawn is not None
    return Ensemble(drawn, batch.values[0][inner], batch.ticks[:, inner], batch.ticks[:, indices])


def flow_interpolation(
    given: Values, ends: Field, gap: NDArray[np.int64], share: NDArray[np.float32]
) -> Field:
    """Advect both ends of each gap to each of its times, and average by the distance in time.

    The flow is that of the frames as `given` (frames, height, width, channels); what is advected
    are their values `ends`. Returns a frame for each entry of `gap` and `share`, the part of that
    gap's time that has gone by.
    """
    flows = {k: flow_of(given[k : k + 2]) for k in set(gap.tolist())}
    fields = []
    for k, part in zip(gap.tolist(), share.tolist(), strict=True):
        before = advected(ends[k], part * flows[k])
        after = advected(ends[k + 1], (part - 1) * flows[k])
        fields.append((1 - part) * before + part * after)
    return np.stack(fields).astype(np.float32)


def _by_place(forecast: Forecast, observed: Field, positions: int, seed: int) -> Totals:
    """Sum a forecast's scores over the gaps, (places, channels, ...)."""
    totals = clip_totals(forecast, observed, (), seed)
    return {
        name: value.reshape(-1, positions, *value.shape[1:]).sum(axis=0)
        for name, value in totals.items()
    }


def rows(results: Results) -> Iterator[Row]:
    """Yield every score of every forecast."""
    if "between" not in results:
        return
    scores = results["between"]
    head = (
        f"{scores['members']} ways through {scores['clips']} clips of {scores['sources']} source "
        f"videos, 1 frame of {scores['every']} given"
    )
    yield from score_rows(head, scores["unit"], scores["forecasts"])


METRIC = Metric(
    name="between",
    summary=(
        "`--task between`: end frames, or every `--every`-th, given and the frames between as an "
        "ensemble, scored as `futures` by place in the gap, beside linear and optical-flow "
        "interpolation, the frame before and climatology (models trained with frames ahead)"
    ),
    run=run,
    rows=rows,
    needs=needs,
    automatic=False,
)
