"""Temporal warping error of generated video beside real video."""

from __future__ import annotations

from collections.abc import Iterator

from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import evenly
from sdevid.evaluate.statistics.bootstrap import ratio_of_means
from sdevid.evaluate.statistics.estimate import mean_over
from sdevid.evaluate.statistics.warping import warping_error

VIDEOS = 32  # of each kind whose flow is found


def run(context: EvalContext) -> Results:
    """Measure the errors of generated and of real video, and their ratio."""
    number = min(VIDEOS, len(context.index))
    frames, fps = context.config.sequence_length, context.config.fps
    generated = context.generate(range(number), frames, fps, "videos to warp")
    real = context.real(evenly(number, len(context.index)), "clips to warp")
    errors = [
        warping_error(part, f"flow of {name}")
        for part, name in ((generated, "generated"), (real, "real"))
    ]
    return {
        "warping": {
            "videos": number,
            "generated": mean_over(errors[0]).as_json(),
            "real": mean_over(errors[1]).as_json(),
            "ratio": ratio_of_means(errors[0], errors[1]).as_json(),
        }
    }


def rows(results: Results) -> Iterator[Row]:
    """Yield both errors and their ratio."""
    if "warping" not in results:
        return
    entries = results["warping"]
    section = f"Temporal warping error, {entries['videos']} videos"
    yield Row(section, "generated", entries["generated"])
    yield Row(section, "real", entries["real"])
    yield Row(section, "generated over real", entries["ratio"], "1 where it is as steady")


METRIC = Metric(
    name="warping",
    summary="temporal warping error, and its ratio to real video's",
    run=run,
    rows=rows,
    automatic=False,
)
