"""All metrics, in the order of the table, and the choice among them."""

from __future__ import annotations

from sdevid.errors import UserError
from sdevid.evaluate.andi import metric as andi
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.digits import futures as digits
from sdevid.evaluate.ensembles import between, futures
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.metrics import (
    bound,
    failures,
    fvd,
    iwae,
    kid,
    lpips,
    prediction,
    prompts,
    refinement,
    warping,
)
from sdevid.evaluate.sde_recovery import motion_metric, rates, simulator_futures

METRICS: tuple[Metric, ...] = (
    bound.METRIC,
    iwae.METRIC,
    failures.METRIC,
    prediction.METRIC,
    futures.METRIC,
    between.METRIC,
    refinement.METRIC,
    digits.METRIC,
    andi.METRIC,
    prompts.METRIC,
    lpips.METRIC,
    warping.METRIC,
    fvd.METRIC,
    kid.METRIC,
    motion_metric.METRIC,
    rates.METRIC,
    simulator_futures.METRIC,
)
NAMES = tuple(metric.name for metric in METRICS)


def choose(asked: str | None, context: EvalContext) -> tuple[Metric, ...]:
    """Choose the metrics named in `asked`, a list with commas, in the order of the registry.

    `auto` (the default) stands for the automatic metrics whose needs are met, `all` for every
    metric whose needs are met. UserError for an unknown name, or one whose needs are not met.
    """
    unmet = {metric.name: metric.needs(context) for metric in METRICS}
    chosen: set[str] = set()
    for name in (part.strip() for part in (asked or "auto").split(",")):
        if name in ("auto", "all"):
            chosen.update(
                metric.name
                for metric in METRICS
                if unmet[metric.name] is None and (name == "all" or metric.automatic)
            )
        elif name not in NAMES:
            raise UserError(f"--metrics names {name!r}, but there are auto, all, {_list(NAMES)}")
        elif unmet[name] is not None:
            raise UserError(f"--metrics names {name}, but {unmet[name]}; leave {name} out")
        else:
            chosen.add(name)
    return tuple(metric for metric in METRICS if metric.name in chosen)


def left_out(context: EvalContext) -> dict[str, str]:
    """List the automatic metrics whose needs are not met, with the reasons."""
    reasons = {one.name: one.needs(context) for one in METRICS if one.automatic}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def rows(results: Results) -> list[Row]:
    """Collect every figure in `results`, metric by metric, then what was left out and why."""
    listed = [row for metric in METRICS for row in metric.rows(results)]
    reasons = results.get("protocol", {}).get("left_out", {})
    return listed + [
        Row("Left out", name, {"mean": None}, reason) for name, reason in reasons.items()
    ]


def documentation() -> str:
    """Format the metrics as a table in Markdown; docs/evaluation.md shows it."""
    lines = ["| metric | run by `auto` | what it is |", "| --- | --- | --- |"]
    for metric in METRICS:
        when = "where it can" if metric.automatic else "when named"
        lines.append(f"| {metric.name} | {when} | {metric.summary} |")
    return "\n".join(lines) + "\n"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
