"""Kernel distance of generated from real video, on features of random networks."""

from __future__ import annotations

from collections.abc import Iterator

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.networks import SEEDS, random_features
from sdevid.evaluate.metrics.video_sets import distance_row, gather
from sdevid.evaluate.statistics.distribution import kernel_distance


def run(context: EvalContext) -> Results:
    """KID on the features of three random networks, each with its floor."""
    sets, entries = gather(context), []
    for seed in SEEDS:
        network = random_features(seed, context.config.channels)
        features = sets.features(context, network, f"random features {seed}")
        mean, scale = features[1].mean(axis=0), features[1].std(axis=0) + 1e-6
        generated, real, training = ((part - mean) / scale for part in features)
        entries.append(
            {
                "feature_seed": seed,
                "distance": kernel_distance(generated, real).as_json(),
                "floor": kernel_distance(training, real).as_json(),
            }
        )
    return {"kid": sets.protocol() | {"seeds": entries}}


def rows(results: Results) -> Iterator[Row]:
    """One distance a network."""
    kid = results.get("kid", {"seeds": []})
    for entry in kid["seeds"]:
        which = f", feature seed {entry['feature_seed']}"
        yield distance_row("KID on random 3-D features", entry, kid, which)


METRIC = Metric(
    name="kid",
    summary=(
        "kernel distance of `--set_size` videos on random 3-D features, three seeds, each with its "
        "floor"
    ),
    run=run,
    rows=rows,
    automatic=False,
)
