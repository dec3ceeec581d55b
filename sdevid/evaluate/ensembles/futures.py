"""Futures of held-out prefixes against what happened, beside baselines, on any video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from sdevid.data import source_units, stream
from sdevid.data.source_units import SourceUnits
from sdevid.evaluate import generation
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.ensembles import baselines
from sdevid.evaluate.ensembles.baselines import BASELINES, Baseline, Case, Forecast
from sdevid.evaluate.ensembles.noise_growth import Ensemble, with_growth
from sdevid.evaluate.ensembles.observation_noise import ObservationNoise, observation_noise
from sdevid.evaluate.ensembles.scores import SIDES, BySource, Totals, clip_totals, spectra
from sdevid.evaluate.ensembles.steps import STEPS
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.networks import as_input, random_features
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.energy import energy_score
from sdevid.evaluate.statistics.ensemble import LEVELS
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values, masked_like
from sdevid.evaluate.table import number
from sdevid.models.protocols import Likelihood
from sdevid.types import Batch

CLIPS = 64  # prefixes, at most
DECODED = "model_without_noise"
ALL: tuple[Baseline, ...] = (*BASELINES, STEPS)


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: it needs an ensemble of two or more."""
    one = context.options.samples < 2
    return "an ensemble of one has no spread; give --samples 2 or more" if one else None


def run(context: EvalContext) -> Results:
    """Score the model's futures and every baseline's."""
    options, config = context.options, context.config
    clips = evenly(min(CLIPS, len(context.clips)), len(context.index))
    units = source_units.parse(options.values, context.index.dataset)
    unmet = {one.name: reason for one in ALL if (reason := one.needs(context))}
    noise = with_growth(context, observation_noise(context), partial(_ensemble, context))
    totals: dict[str, list[Totals]] = {}
    for part in batches(clips, 1, "futures beside baselines"):
        for name, scored in _clip(context, part, units, unmet, noise).items():
            totals.setdefault(name, []).append(scored)
    sources = [context.index.clips[clip].source for clip in clips]
    largest = float(np.nanmax([one["largest"] for one in totals["model"]]))
    beyond = {
        f"threshold {threshold:g}": f"no value reaches it; the largest is {largest:.4g}"
        for threshold in options.thresholds
        if threshold > largest
    }
    summed = {name: BySource(each, sources) for name, each in totals.items()}
    return {
        "futures": {
            "clips": len(clips),
            "sources": len(set(sources)),
            "members": options.samples,
            "context": options.context,
            "unit": units.unit,
            "frame_interval": 1 / config.fps,
            "thresholds": list(options.thresholds),
            "observation_noise": noise.record,
            "forecasts": {
                name: forecast_entries(each, config.channels, options.thresholds)
                | ({} if name == "model" else _beside(each, summed["model"], config.channels))
                for name, each in summed.items()
            },
            "left_out": unmet | beyond,
        }
    }


def _clip(
    context: EvalContext,
    clip: range,
    units: SourceUnits,
    unmet: dict[str, str],
    noise: ObservationNoise,
) -> dict[str, Totals]:
    """Sum the scores of every forecast of one clip."""
    options = context.options
    batch = stream.fixed(context.index, context.config, clip)
    video = batch.values[0]
    prefix, outcome = video[: options.context], video[options.context :]
    futures = generation.futures(
        context.model, batch, options.context, options.samples, context.seed, noise.likelihood
    )
    past, seed = baselines.past_clips(context), context.seed + clip.start
    case = Case(prefix, len(outcome), options.samples, units, past, seed)
    observed = units.values(outcome)
    drawn = None if futures.observed is None else futures.observed[0]
    forecasts = model_forecasts(units, futures.samples[0], drawn)
    forecasts |= {one.name: one.forecast(case) for one in ALL if one.name not in unmet}
    totals = {}
    for name, forecast in forecasts.items():
        totals[name] = clip_totals(forecast, observed, options.thresholds, seed)
        if options.spectra:
            totals[name] |= spectra(forecast, observed)
    totals["model"] |= _energy(futures.samples[0], outcome, context)
    totals["model"]["largest"] = np.fmax.reduce(observed, axis=(1, 2))
    return totals


def _ensemble(context: EvalContext, batch: Batch, members: int, likelihood: Likelihood) -> Ensemble:
    """Forecast one clip by members drawn from `likelihood`."""
    given, ticks = context.options.context, batch.ticks
    futures = generation.futures(context.model, batch, given, members, context.seed, likelihood)
    assert futures.observed is not None
    outcome = batch.values[0, given:]
    return Ensemble(futures.observed[0], outcome, ticks[:, given:], ticks[:, :given])


def model_forecasts(
    units: SourceUnits, decoded: Values, observed: Values | None
) -> dict[str, Forecast]:
    """Name the model's forecasts: members with observation noise, and the decoded frames alone.

    What happened is a frame, so the frame's predictive distribution is `model`.
    """
    alone = Forecast(units.values(decoded), "ensemble")
    if observed is None:
        return {"model": alone}
    return {"model": Forecast(units.values(observed), "ensemble"), DECODED: alone}


@torch.no_grad()
def _energy(samples: Values, outcome: Values, context: EvalContext) -> Totals:
    """Compute the energy score of the frames' random features, as (frames, 1) sums and counts.

    Outcome and samples are black alike where the outcome was not observed.
    """
    network = random_features(0, samples.shape[-1])
    samples, outcome = masked_like(samples, outcome), masked_like(outcome, outcome)

    def features(video: Values) -> Floats:
        frames = torch.from_numpy(video.reshape(-1, 1, *video.shape[-3:])).to(context.device)
        values: Floats = network(as_input(frames)).double().cpu().numpy()
        return values.reshape(*video.shape[:-3], -1)

    score = energy_score(features(samples), features(outcome))
    return {"energy": score[:, None], "frames": np.ones((len(score), 1))}


def forecast_entries(
    by_source: BySource, channels: int, thresholds: tuple[float, ...]
) -> dict[str, Any]:
    """Collect one forecast's scores by channel, and its energy score over all channels."""
    entries: dict[str, Any] = {
        "channels": [_channel(by_source, c, thresholds) for c in range(channels)]
    }
    if "energy" in by_source:
        entries["energy_score"] = by_source.ratio("energy", "frames", 0)
    return entries


def _beside(baseline: BySource, model: BySource, channels: int) -> dict[str, Any]:
    """Divide the model's CRPS by a baseline's, (channels, lead times), over source videos."""
    ratios = [model.ratio_to(baseline, "crps_1", "pixels_1", c) for c in range(channels)]
    return {"model_crps_share_by_lead": ratios}


def _channel(by_source: BySource, channel: int, thresholds: tuple[float, ...]) -> dict[str, Any]:
    pools = [key.removeprefix("crps_") for key in by_source.sums if key.startswith("crps_")]
    entry: dict[str, Any] = {
        "crps": {p: by_source.ratio(f"crps_{p}", f"pixels_{p}", channel) for p in pools},
        "rmse": by_source.ratio("squared_error", "pixels", channel, root=True),
    }
    if "ranks" in by_source:
        entry["spread_over_error"] = by_source.ratio(
            "variance", "squared_error", channel, root=True
        )
        entry["coverage"] = {
            f"{level:g}": by_source.ratio(f"covered_{level:g}", "pixels", channel)
            for level in LEVELS
        }
        entry["ranks"] = by_source.ranks(channel)
    if "spectrum" in by_source:
        entry["spectrum"] = by_source.mean_curve("spectrum", channel)
        entry["spectrum_observed"] = by_source.mean_curve("spectrum_observed", channel)
    if thresholds:
        entry["thresholds"] = {f"{t:g}": _events(by_source, f"{t:g}", channel) for t in thresholds}
    return entry


def _events(by_source: BySource, name: str, channel: int) -> dict[str, Any]:
    hits, misses, false_alarms = (f"{k}_{name}" for k in ("hits", "misses", "false_alarms"))
    forecasts, probability, events = by_source.sums[f"reliability_{name}"][:, :, channel].sum(
        axis=(0, 1)
    )
    return {
        "csi": by_source.shares(hits, (misses, false_alarms), channel),
        "pod": by_source.shares(hits, (misses,), channel),
        "far": by_source.shares(false_alarms, (hits,), channel),
        "fss": {
            f"{side}": by_source.skill(
                f"fss_error_{name}_{side}", f"fss_reference_{name}_{side}", channel
            )
            for side in SIDES
            if f"fss_error_{name}_{side}" in by_source
        },
        "reliability": {
            "forecasts": forecasts.tolist(),
            "probability": (probability / np.maximum(forecasts, 1)).tolist(),
            "frequency": (events / np.maximum(forecasts, 1)).tolist(),
        },
    }


def rows(results: Results) -> Iterator[Row]:
    """Yield every score of every forecast."""
    if "futures" not in results:
        return
    scores = results["futures"]
    head = (
        f"{scores['members']} futures of {scores['clips']} prefixes from {scores['sources']} "
        f"source videos, {scores['context']} frames given"
    )
    yield from score_rows(head, scores["unit"], scores["forecasts"])
    score = scores["forecasts"]["model"]["energy_score"]
    yield Row(f"{head}: energy score of random features", "model", score)
    for name, reason in scores["left_out"].items():
        yield Row(f"{head}: left out", name, {"mean": None}, reason)


def score_rows(head: str, unit: str, forecasts: dict[str, Any]) -> Iterator[Row]:
    """Yield the rows of all forecasts, score by score."""
    channels = forecasts["model"]["channels"]
    for channel in range(len(channels)):
        of = f", channel {channel}" if len(channels) > 1 else ""
        for title, pick in _scores(unit, channels[0]):
            for name, entries in forecasts.items():
                entry = pick(entries["channels"][channel])
                if entry is not None:
                    words = name.replace("_", " ")
                    yield Row(f"{head}: {title}{of}", words, entry, entry.get("note", ""))


Pick = Callable[[dict[str, Any]], dict[str, Any] | None]


def _scores(unit: str, example: dict[str, Any]) -> Iterator[tuple[str, Pick]]:
    """Yield the title of each section of the table, and a picker of its entry."""
    for pool in example["crps"]:
        where = "" if pool == "1" else f" of means over {pool} x {pool} pixels"
        yield f"fair CRPS{where}, {unit}", lambda one, pool=pool: one["crps"].get(pool)  # type: ignore[misc]
    yield f"RMSE of the ensemble mean, {unit}", lambda one: one["rmse"]
    yield "spread over error", lambda one: one.get("spread_over_error")
    for level in example["coverage"]:
        title = f"coverage of central {100 * float(level):g} % intervals"
        yield title, lambda one, level=level: one.get("coverage", {}).get(level)  # type: ignore[misc]
    yield "reliability index of ranks", lambda one: _ranks(one)
    for threshold in example.get("thresholds", {}):
        for key in ("csi", "pod", "far"):
            title = f"{key.upper()} at {threshold} {unit}, by most members"
            yield title, lambda one, t=threshold, k=key: one["thresholds"][t][k]  # type: ignore[misc]


def _ranks(entry: dict[str, Any]) -> dict[str, Any] | None:
    if "ranks" not in entry:
        return None
    ranks = entry["ranks"]
    note = f"p of flat ranks {number(ranks['p_value'])}"
    return {"mean": ranks["reliability_index"], "note": note}


METRIC = Metric(
    name="futures",
    summary=(
        "`--samples` futures of 64 prefixes beside persistence, climatology, random past clips, "
        "optical flow and STEPS, in the source's units by lead time: fair CRPS (pixel, pooled), "
        "RMSE, spread over error, ranks, coverage, with observation noise and without; with "
        "`--thresholds` CSI, FAR, POD, FSS and reliability; with `--spectra` power spectra; "
        "intervals by bootstrap over source videos"
    ),
    run=run,
    rows=rows,
    needs=needs,
)
