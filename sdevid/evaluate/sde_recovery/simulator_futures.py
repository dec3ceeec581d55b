"""Futures of the model beside futures of the true SDE, from the same prefix.

The model is given the first frames of a held-out clip; the simulator starts in its true state at
the last of them. Both are scored against the outcome, tracked in the clip's own video.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.generation import futures
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.sde_recovery.motion_metric import needs_known_sde
from sdevid.evaluate.statistics.calibration import ranks, spread_skill
from sdevid.evaluate.statistics.energy import energy_score
from sdevid.evaluate.statistics.estimate import Floats, finite, mean_over
from sdevid.evaluate.table import number, short

PREFIXES = 64  # clips, at most
FUTURES = 64  # of each
Paths = dict[str, list[Floats]]  # by axis, then clip

_BINS = 13  # of the ranks 0 to 64, over all frames ahead
_LAST_BINS = 8  # at the last frame alone, where clips are independent cases


def compare(context: EvalContext) -> dict[str, Any]:
    """Score both ensembles along each axis, and how far the model's is behind."""
    tracker, observed = context.tracker, context.options.context
    assert tracker is not None
    clips = evenly(min(PREFIXES, len(context.clips)), len(context.index))
    model: Paths = {name: [] for name in tracker.axes}
    simulator: Paths = {name: [] for name in tracker.axes}
    outcome: Paths = {name: [] for name in tracker.axes}
    for part in batches(clips, 1, "many futures"):
        batch = stream.fixed(context.index, context.config, part)
        samples = futures(context.model, batch, observed, FUTURES, context.seed).samples
        real = tracker.paths(batch.pixels)
        generated, simulated = tracker.paths(samples[0]), _simulate(context, part.start)
        for i, name in enumerate(tracker.axes):
            outcome[name].append(real[name][0, observed:])
            model[name].append(generated[name])
            simulator[name].append(simulated[..., i])
    return {
        "clips": len(clips),
        "members": FUTURES,
        "context": observed,
        "axes": {
            name: {
                source: _scores(np.stack(members[name], axis=1), np.stack(outcome[name]))
                for source, members in (("model", model), ("simulator", simulator))
            }
            for name in tracker.axes
        },
    } | {"energy_score": _together(model, simulator, outcome)}


def _simulate(context: EvalContext, clip: int) -> Floats:
    """Simulate the true SDE from one clip's true state, (futures, frames ahead, axes)."""
    tracker, observed = context.tracker, context.options.context
    assert tracker is not None
    meta = context.index.read(clip).meta
    first = stream.first_frame(context.index, context.config, clip)
    (stride,) = stream.at_own_rate(context.index, context.config).frame_strides
    state = tracker.scene.state(meta, first + (observed - 1) * stride)
    ahead = context.config.sequence_length - observed
    times = np.arange(ahead + 1) / context.config.fps
    start = np.repeat(state[None], FUTURES, axis=0)
    rng = np.random.default_rng([context.seed, clip])
    states = tracker.scene.simulate(rng, FUTURES, times, start)
    return tracker.scene.seen(states[:, 1:])


def _scores(samples: Floats, outcome: Floats) -> dict[str, Any]:
    """Score ensembles (members, clips, frames ahead) along one axis."""
    crps = energy_score(samples[..., None], outcome[..., None])
    all_ranks = ranks(samples.reshape(len(samples), -1), outcome.ravel(), _BINS)
    last = ranks(samples[:, :, -1], outcome[:, -1], _LAST_BINS)
    return {
        "crps": mean_over(np.nanmean(crps, axis=1)).as_json(),
        "crps_by_frame": [finite(mean_over(column).mean) for column in crps.T],
        "spread_skill": spread_skill(samples, outcome).as_json(),
        "ranks": [finite(share) for share in all_ranks.share],
        "reliability_index": finite(all_ranks.reliability),
        "last_frame": {
            "ranks": [finite(share) for share in last.share],
            "cases": last.cases,
            "chi_square": finite(last.chi_square),
            "p_value": finite(last.p_value),
        },
    }


def _together(model: Paths, simulator: Paths, outcome: Paths) -> dict[str, Any]:
    """Compute the energy score over all axes at once, by clip, and the mean paired difference."""

    def score(members: Paths) -> Floats:
        samples = np.stack([np.stack(part, axis=1) for part in members.values()], axis=-1)
        true = np.stack([np.stack(part) for part in outcome.values()], axis=-1)
        by_clip: Floats = np.nanmean(energy_score(samples, true), axis=1)
        return by_clip

    own, best = score(model), score(simulator)
    return {
        "model": mean_over(own).as_json(),
        "simulator": mean_over(best).as_json(),
        "model_minus_simulator": mean_over(own - best).as_json(),
    }


def run(context: EvalContext) -> Results:
    """Compare the model's futures with the simulator's."""
    return {"simulator_futures": compare(context)}


def rows(results: Results) -> Iterator[Row]:
    """Yield the model's scores, with the simulator's as notes."""
    if "simulator_futures" not in results:
        return
    entries = results["simulator_futures"]
    section = f"{entries['members']} futures of each of {entries['clips']} prefixes"
    together = entries["energy_score"]
    note = f"simulator {short(together['simulator'])}"
    yield Row(section, "energy score", together["model"], note)
    yield Row(section, "that less the simulator's", together["model_minus_simulator"])
    for axis, source in entries["axes"].items():
        model, simulator = source["model"], source["simulator"]
        for key, name in (("crps", "CRPS"), ("spread_skill", "spread over error")):
            note = f"simulator {short(simulator[key])}"
            yield Row(section, f"{name} of {axis}", model[key], note)
        note = f"simulator {number(simulator['reliability_index'])}"
        reliability = {"mean": model["reliability_index"]}
        yield Row(section, f"reliability index of ranks, {axis}", reliability, note)
        p = {"mean": model["last_frame"]["p_value"]}
        note = f"simulator {number(simulator['last_frame']['p_value'])}"
        yield Row(section, f"p of flat ranks at the last frame, {axis}", p, note)


METRIC = Metric(
    name="simulator_futures",
    summary=(
        "64 futures of the model beside 64 of the true SDE, of 64 prefixes: energy score, CRPS, "
        "spread over error, ranks (known SDE)"
    ),
    run=run,
    rows=rows,
    needs=needs_known_sde,
)
