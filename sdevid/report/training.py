"""The page's sections on training: the bound and its terms, and the diagnostics."""

from __future__ import annotations

import numpy as np

from sdevid.report.plot import Series, plot
from sdevid.report.record import Record
from sdevid.report.words import missing

POINTS = 240  # of a curve, at most; more are averaged
TERMS = (
    ("elbo", "ELBO"),
    ("reconstruction", "Reconstruction"),
    ("kl_path", "KL of the path"),
    ("kl_birth", "KL of the birth"),
    ("kl_initial", "KL of the first state"),
    ("kl_content", "KL of the content code"),
    ("bridge", "Regression of the bridge"),
    ("frame_divergence", "Divergence of the frames from N(0, 1)"),
)


def bound(run: Record) -> str:
    """Plot the evidence lower bound and its terms over the clips trained on."""
    title = "<h2>The bound over training</h2>"
    if not run.metrics:
        command = f"python -m sdevid train --config {run.folder / 'config.yaml'}"
        return title + missing("metrics.jsonl is not there yet: nothing was trained.", command)
    plots = "".join(_term(run, name, label) for name, label in TERMS if run.curve(name)[0])
    context = run.config.get("observation", {}).get("max_context")
    seen = f"0 to {context}" if context is not None else "some of its"
    return (
        f"{title}<p>Nats a clip, higher is better for the first two and lower for the divergences. "
        "Points are held-out clips with no frame observed, by the averaged weights of each "
        f"checkpoint kept; lines are training clips, whose prior is shown {seen} frames and whose "
        f'bound counts the frames from the last shown one on.</p><div class="plots">{plots}</div>'
    )


def _term(run: Record, name: str, label: str) -> str:
    x, y = thin(*run.curve(name))
    curves = [Series("training", x, y, "exact")] if x else []
    history = (run.results or {}).get("elbo_over_time") or []
    if history:
        measured = [entry[name] for entry in history]
        curves.append(
            Series(
                "held out",
                [entry["clips"] for entry in history],
                [value["mean"] for value in measured],
                "generated",
                "points",
                [value["standard_error"] for value in measured],
            )
        )
    limits = _limits(curves)
    cut = limits is not None and any(
        value is not None and not limits[0] <= value <= limits[1] for c in curves for value in c.y
    )
    note = "The start of the run lies outside the scale." if cut else ""
    return plot(label, curves, "clips", "nats a clip", limits, note, from_zero=True)


def _limits(curves: list[Series]) -> tuple[float, float] | None:
    """Find limits that hold all but the first tenth of the run, which would flatten the rest."""
    last = max((x for curve in curves for x in curve.x), default=0.0)
    late = [
        y
        for curve in curves
        for x, y in zip(curve.x, curve.y, strict=True)
        if y is not None and x >= 0.1 * last
    ]
    if not late or min(late) == max(late):
        return None
    pad = 0.08 * (max(late) - min(late))
    return min(late) - pad, max(late) + pad


def diagnostics(run: Record) -> str:
    """Plot the diagnostics that tell whether training went as it should."""
    if not run.metrics:
        return ""
    panels = [
        plot("Control energy", [_curve(run, "control_energy")], "clips", "½∫|u|² dt, nats a clip"),
        plot(
            "Diffusion g",
            [
                _curve(run, "g_q95", "95 %", "exact"),
                _curve(run, "g_q50", "median", "generated"),
                _curve(run, "g_q05", "5 %", "real"),
            ],
            "clips",
            "latent units per √s",
        ),
        plot(
            "Posterior against prior",
            [_curve(run, "gap")],
            "clips",
            "path KL a frame and component",
        ),
        plot("Gradient norm", [_curve(run, "grad_norm")], "clips", "before clipping"),
        plot("Learning rate", [_curve(run, "learning_rate")], "clips"),
        plot("KL weight", [_curve(run, "kl_weight")], "clips"),
        plot("Speed", [_curve(run, "clips_per_s")], "clips", "clips a second"),
        plot("Waiting for data", [_curve(run, "data_wait")], "clips", "share of a step"),
    ]
    return f'<h2>Diagnostics</h2><div class="plots small">{"".join(panels)}</div>'


def _curve(run: Record, name: str, label: str = "", colour: str = "generated") -> Series:
    x, y = thin(*run.curve(name))
    return Series(label, x, y, colour)


def thin(x: list[float], y: list[float | None]) -> tuple[list[float], list[float | None]]:
    """Thin a curve to at most `POINTS` points, each the mean of as many lines; gaps stay gaps."""
    if len(x) <= POINTS:
        return x, y
    values = np.array([np.nan if value is None else value for value in y])
    parts = np.array_split(np.arange(len(x)), POINTS)
    means = [float(values[part].mean()) for part in parts]
    return [x[part[-1]] for part in parts], [m if np.isfinite(m) else None for m in means]
