"""Frechet distance of generated from real video, on features of the user's I3D."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.networks import FeatureNetwork, video_network
from sdevid.evaluate.metrics.video_sets import collect_sets, distance_row
from sdevid.evaluate.statistics.distribution import resampled_frechet_distance


def needs(context: EvalContext) -> str | None:
    """Say why FVD cannot run, or None: --fvd_i3d must name a network."""
    is_set = context.options.fvd_i3d is not None
    return None if is_set else "no network is given for it by --fvd_i3d"


@lru_cache(maxsize=1)
def _network(context: EvalContext) -> FeatureNetwork:
    options = context.options
    assert options.fvd_i3d is not None
    frames = context.config.sequence_length
    frames -= options.context if options.set_context == "out" else 0
    return video_network(options.fvd_i3d, frames, context.device)


def prepare(context: EvalContext) -> None:
    """Try the network on two clips."""
    _network(context)


def run(context: EvalContext) -> Results:
    """Compute FVD and its floor."""
    sets = collect_sets(context)
    generated, real, training = sets.features(context, _network(context), "I3D features")
    return {
        "fvd": sets.protocol()
        | {
            "distance": resampled_frechet_distance(generated, real).as_json(),
            "floor": resampled_frechet_distance(training, real).as_json(),
            "features": generated.shape[1],
        }
    }


def rows(results: Results) -> Iterator[Row]:
    """Yield the distance."""
    if "fvd" in results:
        yield distance_row("FVD by the given I3D", results["fvd"], results["fvd"])


METRIC = Metric(
    name="fvd",
    summary="Frechet distance on the features of a TorchScript I3D (`--fvd_i3d`)",
    run=run,
    rows=rows,
    needs=needs,
    prepare=prepare,
)
