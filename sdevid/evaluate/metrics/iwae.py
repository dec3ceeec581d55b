"""The importance weighted bound: tighter than the ELBO, by many draws of the posterior's path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch

from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics.bound import SECTION
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Estimate, mean_over
from sdevid.objectives.importance import WeightedObjective, bound, log_weight


@torch.no_grad()
def importance_weighted(
    objective: WeightedObjective, index: ShardIndex, clips: range, draws: int, batch_size: int = 16
) -> dict[str, Estimate]:
    """Estimate the importance weighted bound of `draws` draws, and of one, in nats a clip.

    Both are of the same draws of the posterior, so that their difference is the gain.
    """
    device = next(objective.model.parameters()).device
    tight, loose = [], []
    for part in batches(clips, batch_size, f"IWAE bound, {draws} draws"):
        batch = stream.fixed(index, objective.config, part)
        video, ticks = batch.video.to(device), batch.ticks.to(device)
        serials = (batch.serial * draws + k for k in range(draws))
        each = torch.stack(
            [log_weight(objective, video, ticks, serial.to(device)) for serial in serials]
        ).double()
        tight.append(bound(each).cpu())
        loose.append(each.mean(0).cpu())
    values = {"iwae": torch.cat(tight), "elbo": torch.cat(loose)}
    values["gain"] = values["iwae"] - values["elbo"]
    return {name: mean_over(np.asarray(value)) for name, value in values.items()}


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: the density of the posterior's path must be known."""
    config = context.config
    if not config.capabilities.weighs_paths:
        return f"model_type {config.model_type} has no posterior path that can be weighted"
    if config.capabilities.simulates and config.sde.solver != "euler_maruyama":
        return f"the density of a path is known of euler_maruyama, not of {config.sde.solver}"
    return None


def run(context: EvalContext) -> Results:
    """Estimate the bound, and how much it gains over the ELBO of the same draws."""
    objective = cast(WeightedObjective, context.objective)
    draws = context.options.draws
    tight = importance_weighted(objective, context.index, context.clips, draws)
    entries = {name: value.as_json() for name, value in tight.items()}
    return {"iwae": {"draws": draws, **entries}}


def rows(results: Results) -> Iterator[Row]:
    """Yield the bound and its gain."""
    if "iwae" not in results:
        return
    tight = results["iwae"]
    yield Row(SECTION, f"IWAE bound, {tight['draws']} draws", tight["iwae"])
    yield Row(SECTION, "its gain over the ELBO", tight["gain"], "of the same draws")


METRIC = Metric(
    name="iwae",
    summary="importance weighted bound of `--draws` draws (where a path has a weight)",
    run=run,
    rows=rows,
    needs=needs,
    automatic=False,
)
