"""Many futures: those of the model beside those of the true SDE, from the same prefix.

The model sees the first frames of a held-out clip; the simulator starts in its true state at the
last of them. Both are scored against what came, followed in the clip's own video.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.calibration import ranks, spread_skill
from sdevid.evaluate.energy import energy_score
from sdevid.evaluate.measured import Floats, finite, mean_over
from sdevid.evaluate.prediction import futures
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.subject import Subject

PREFIXES = 64  # clips, at most
FUTURES = 64  # of each
_BINS = 13  # of the ranks 0 to 64, over all frames ahead
_LAST_BINS = 8  # at the last frame alone, where clips are independent cases


def many(subject: Subject, context: int) -> dict[str, Any]:
    """Scores of both ensembles along each axis, and how much the model's is behind."""
    observer = subject.observer
    assert observer is not None
    clips = evenly(min(PREFIXES, len(subject.clips)), len(subject.index))
    model: dict[str, list[Floats]] = {name: [] for name in observer.axes}
    truth: dict[str, list[Floats]] = {name: [] for name in observer.axes}
    came: dict[str, list[Floats]] = {name: [] for name in observer.axes}
    for part in batches(clips, 1, "many futures"):
        batch = stream.fixed(subject.index, subject.config, part)
        made, _ = futures(subject.model, batch, context, FUTURES, subject.seed)
        seen = observer.paths(batch.video.numpy())
        followed, simulated = observer.paths(made[0]), _simulated(subject, part.start, context)
        for i, name in enumerate(observer.axes):
            came[name].append(seen[name][0, context:])
            model[name].append(followed[name])
            truth[name].append(simulated[..., i])
    return {
        "clips": len(clips),
        "members": FUTURES,
        "context": context,
        "axes": {
            name: {
                who: _scores(np.stack(members[name], axis=1), np.stack(came[name]))
                for who, members in (("model", model), ("simulator", truth))
            }
            for name in observer.axes
        },
    } | {"energy_score": _together(model, truth, came)}


def _simulated(subject: Subject, number: int, context: int) -> Floats:
    """(futures, frames ahead, axes) of the true SDE from the true state of the one clip."""
    observer = subject.observer
    assert observer is not None
    said = subject.index.read(number).meta
    first = stream.first_frame(subject.index, subject.config, number)
    state = observer.scene.state(said, first + context - 1)
    ahead = subject.config.sequence_length - context
    times = np.arange(ahead + 1) / subject.config.fps
    start = np.repeat(state[None], FUTURES, axis=0)
    rng = np.random.default_rng([subject.seed, number])
    states = observer.scene.simulate(rng, FUTURES, times, start)
    return observer.scene.seen(states[:, 1:])


def _scores(samples: Floats, came: Floats) -> dict[str, Any]:
    """Of ensembles (members, clips, frames ahead) along one axis."""
    crps = energy_score(samples[..., None], came[..., None])
    all_ranks = ranks(samples.reshape(len(samples), -1), came.ravel(), _BINS)
    last = ranks(samples[:, :, -1], came[:, -1], _LAST_BINS)
    return {
        "crps": mean_over(np.nanmean(crps, axis=1)).as_json(),
        "crps_by_frame": [finite(mean_over(column).mean) for column in crps.T],
        "spread_skill": spread_skill(samples, came).as_json(),
        "ranks": [finite(share) for share in all_ranks.share],
        "reliability_index": finite(all_ranks.reliability),
        "last_frame": {
            "ranks": [finite(share) for share in last.share],
            "cases": last.cases,
            "chi_square": finite(last.chi_square),
            "p_value": finite(last.p_value),
        },
    }


def _together(
    model: dict[str, list[Floats]], truth: dict[str, list[Floats]], came: dict[str, list[Floats]]
) -> dict[str, Any]:
    """The energy score over all axes at once, by clip, and the mean of the paired difference."""

    def score(members: dict[str, list[Floats]]) -> Floats:
        samples = np.stack([np.stack(part, axis=1) for part in members.values()], axis=-1)
        true = np.stack([np.stack(part) for part in came.values()], axis=-1)
        by_clip: Floats = np.nanmean(energy_score(samples, true), axis=1)
        return by_clip

    own, best = score(model), score(truth)
    return {
        "model": mean_over(own).as_json(),
        "simulator": mean_over(best).as_json(),
        "model_minus_simulator": mean_over(own - best).as_json(),
    }
