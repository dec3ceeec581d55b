"""Kernel distance of generated from real video, on a given network's features or random ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.frame_networks import video_features
from sdevid.evaluate.metrics.networks import SEEDS, FeatureNetwork, random_features
from sdevid.evaluate.metrics.video_sets import VideoSets, collect_sets, distance_row
from sdevid.evaluate.statistics.distribution import kernel_distance
from sdevid.evaluate.statistics.estimate import Floats

_LEAST_DEVIATION = 0.1  # of a feature, in mean deviations


@lru_cache(maxsize=1)
def _network(context: EvalContext) -> FeatureNetwork:
    path = context.options.features
    assert path is not None
    return video_features(path, context.config.frame_shape, context.device)


def prepare(context: EvalContext) -> None:
    """Try the user's network, if there is one."""
    if context.options.features is not None:
        _network(context)


def run(context: EvalContext) -> Results:
    """Compute KID on the user's network, or on three random ones; each with its floor."""
    sets, network = collect_sets(context), context.options.features
    if network is not None:
        entry = _distance(sets, context, _network(context), network.name)
        return {"kid": sets.protocol() | {"network": network.name, "seeds": [entry]}}
    entries = [
        {"feature_seed": seed}
        | _distance(
            sets, context, random_features(seed, context.config.channels), f"random features {seed}"
        )
        for seed in SEEDS
    ]
    return {"kid": sets.protocol() | {"network": None, "seeds": entries}}


def _distance(
    sets: VideoSets, context: EvalContext, network: FeatureNetwork, title: str
) -> dict[str, Any]:
    """Compute the distance and its floor on standardised features."""
    generated, real, training = standardised(*sets.features(context, network, title))
    return {
        "distance": kernel_distance(generated, real).as_json(),
        "floor": kernel_distance(training, real).as_json(),
    }


def standardised(
    generated: Floats, real: Floats, training: Floats
) -> tuple[Floats, Floats, Floats]:
    """Express features in units of the real ones' deviation.

    A feature that hardly varies over the real videos, as a dead unit does, is in units of a tenth
    of the mean deviation: it would drown all others.
    """
    mean, deviation = real.mean(axis=0), real.std(axis=0)
    scale = np.maximum(deviation, _LEAST_DEVIATION * deviation.mean() + 1e-6)
    return (generated - mean) / scale, (real - mean) / scale, (training - mean) / scale


def rows(results: Results) -> Iterator[Row]:
    """Yield one distance a network."""
    kid = results.get("kid", {"seeds": []})
    for entry in kid["seeds"]:
        if kid.get("network"):
            yield distance_row(f"KID on features of {kid['network']}", entry, kid)
        else:
            which = f", feature seed {entry['feature_seed']}"
            yield distance_row("KID on random 3-D features", entry, kid, which)


METRIC = Metric(
    name="kid",
    summary=(
        "kernel distance of `--set_size` videos on the features of a frozen network "
        "(`--features`: TorchScript, ONNX or SqueezeNet's npz), else on random 3-D features of "
        "three seeds, each with its floor"
    ),
    run=run,
    rows=rows,
    prepare=prepare,
    automatic=False,
)
