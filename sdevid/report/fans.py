"""The page's section on fans of futures: where each clip's futures go, beside what happened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdevid.report.plot import Series, plot
from sdevid.report.record import Record
from sdevid.sample.film import film

LEVELS = ((0.05, "5 %"), (0.25, "25 %"), (0.5, "median"), (0.75, "75 %"), (0.95, "95 %"))
AXES = ("x", "y")
SIDE = 96  # least side of a moving picture, in pixels
SHOWN = 3  # futures that play beside the clip


def fans(run: Record) -> str:
    """Lay out futures that play beside the real clip, and the quantiles of all of them."""
    if "fans" not in run.pictures or run.results is None:
        return ""
    count = run.results["protocol"]["samples"]
    parts = "".join(_clip(run, k) for k in range(len(run.pictures["fans"])))
    return (
        "<h2>Fans of futures</h2><p>Each clip first, then futures of its observed frames. The "
        f"lines are quantiles of {count} futures: the centre of contrast of a frame, in pixels, "
        "beside that of the real one. What happened should leave the outer two lines one time in "
        f"ten.</p>{parts}"
    )


def _clip(run: Record, k: int) -> str:
    pictures, fps = run.pictures, float(run.pictures["fps"])
    clip, samples = pictures["clips"][k], pictures["samples"][k][:SHOWN]
    context = int(pictures["context"])
    observed = np.broadcast_to(clip[:context], (len(samples), context, *clip.shape[1:]))
    videos = np.concatenate([clip[None], np.concatenate([observed, samples], axis=1)])
    shown = film(videos, fps, len(videos), SIDE, f"clip {k + 1} and its futures")
    caption = f"Clip {k + 1}, then {len(samples)} futures after {context} observed frames."
    plots = "".join(_axis(run, k, axis, context / fps, fps) for axis in range(len(AXES)))
    return (
        f'<figure class="fan">{shown}<figcaption>{caption}</figcaption></figure>'
        f'<div class="plots">{plots}</div>'
    )


def _axis(run: Record, k: int, axis: int, begins: float, fps: float) -> str:
    """Plot one axis; the first predicted frame is `begins` seconds into the clip."""
    futures, real = run.pictures["fans"][k][..., axis], run.pictures["paths"][k][:, axis]
    ahead = [begins + frame / fps for frame in range(futures.shape[1])]
    curves = [
        Series(
            name,
            ahead,
            _finite(np.nanquantile(futures, level, axis=0)),
            "generated",
            "line" if level == 0.5 else "dashed",
        )
        for level, name in LEVELS
    ]
    times = [frame / fps for frame in range(len(real))]
    curves.append(Series("what happened", times, _finite(real), "real"))
    return plot(f"Clip {k + 1} along {AXES[axis]}", curves, "seconds", "pixels", from_zero=True)


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
