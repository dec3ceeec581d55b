"""The held-out evidence lower bound and its terms, also of every checkpoint that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from sdevid import checkpoint, export, objectives
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.errors import UserError
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Estimate, mean_over
from sdevid.evaluate.table import plain
from sdevid.objectives.clip_objective import ClipObjective

TERMS = (  # of which a model has those of its start
    "elbo",
    "reconstruction",
    "kl_path",
    "kl_birth",
    "kl_initial",
    "kl_content",
    "control_energy",
)
SECTION = "Held out, nats a clip"


@torch.no_grad()
def held_out(
    objective: ClipObjective,
    index: ShardIndex,
    clips: range,
    title: str = "held-out ELBO",
    batch_size: int = 16,
) -> dict[str, Estimate]:
    """Estimate each term in nats a clip, over the clips with these indices.

    No frame is observed and every KL counts in full: the bound on log p(clip) itself.
    """
    device = next(objective.parameters()).device
    values: dict[str, list[torch.Tensor]] = {}
    for part in batches(clips, batch_size, title):
        batch = stream.fixed(index, objective.config, part)
        terms = objective.terms(
            batch.video.to(device), batch.ticks.to(device), batch.serial.to(device), context=0
        )
        for name in TERMS:
            if name in terms:
                values.setdefault(name, []).append(terms[name].double().cpu())
    return {name: mean_over(np.asarray(torch.cat(parts))) for name, parts in values.items()}


def run(context: EvalContext) -> Results:
    """Estimate the bound of the model and of its run's checkpoints.

    For an objective without one it is None, and no checkpoint is read.
    """
    if not context.config.capabilities.has_bound:
        return {"elbo": None, "elbo_over_time": []}
    terms = held_out(context.objective, context.index, context.clips)
    return {
        "elbo": {name: value.as_json() for name, value in terms.items()},
        "elbo_over_time": _history(context),
    }


def _history(context: EvalContext) -> list[dict[str, Any]]:
    """Estimate the held-out bound of every whole checkpoint that the run keeps, oldest first."""
    run_dir, history = context.options.model_path, []
    for step in reversed(checkpoint.steps(run_dir)):
        folder = checkpoint.folder_of(run_dir, step)
        try:
            model, config = export.load(folder, context.options.weights)
            clips = checkpoint.read_manifest(folder).clips
        except UserError:  # a damaged one: the run's newest whole one is evaluated all the same
            continue
        objective = objectives.build(config, model.to(context.device))
        title = f"held-out ELBO, step {step}"
        terms = held_out(objective.eval(), context.index, context.clips, title)
        entries = {name: value.as_json() for name, value in terms.items()}
        history.append({"clips": clips, "step": step, **entries})
    return history


def rows(results: Results) -> Iterator[Row]:
    """Yield the bound and its terms."""
    if "elbo" in results and results["elbo"] is None:
        kind = results["protocol"]["model_type"]
        why = f"not defined: model_type {kind} has no bound on the likelihood"
        yield Row(SECTION, "ELBO", {"mean": None}, why)
    for name, entry in (results.get("elbo") or {}).items():
        yield Row(SECTION, "ELBO at weight 1" if name == "elbo" else plain(name), entry)


METRIC = Metric(
    name="bound",
    summary="held-out ELBO at weight 1 and its terms, no frame observed; of every checkpoint too",
    run=run,
    rows=rows,
)
