"""Motion tracked in free video beside real video and the known SDE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.sde_recovery import motion
from sdevid.evaluate.table import plain, short


def needs_known_sde(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: dataset.json must name the SDE of drawn video."""
    return context.sde_unknown


def run(context: EvalContext) -> Results:
    """Compare the motion along each axis."""
    tracker = context.tracker
    assert tracker is not None
    generated = tracker.paths(context.free)
    real = tracker.paths(context.real(range(len(context.index)), "tracking real clips"))
    interval = 1 / context.config.fps
    return {
        "motion": {
            name: motion.compare(generated[name], real[name], interval, sde, context.seed)
            for name, sde in tracker.axes.items()
        }
    }


def rows(results: Results) -> Iterator[Row]:
    """Yield the statistics along each axis."""
    for axis, entry in (results.get("motion") or {}).items():
        yield from statistics_rows(f"Motion of generated video along {axis}", entry)


def statistics_rows(section: str, entry: dict[str, Any]) -> Iterator[Row]:
    """Yield the statistics of generated motion, with those of real and true motion as notes."""
    statistics, exact = entry["statistics"], entry["statistics"]["exact"]
    for key, value in statistics["generated"].items():
        real, truth = (short(statistics[name][key]) for name in ("real", "truth"))
        note = f"real {real}, truth {truth}"
        if key in exact:
            note += f", exact {exact[key]:.3g}"
        yield Row(section, plain(key), value, note)


METRIC = Metric(
    name="motion",
    summary=(
        "drift, squared diffusion, variance, autocorrelation and first-passage time of free video "
        "(known SDE)"
    ),
    run=run,
    rows=rows,
    needs=needs_known_sde,
)
