"""Tracked laws as a table and as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Laws = list[dict[str, Any]]


def text(laws: Laws, sign: str) -> str:
    """Format real beside generated film, rate after rate."""
    lines = [f"tracked {sign} blobs, pixels and seconds; 95 % intervals over source videos\n"]
    for law in laws:
        lines.append(f"\nat {law['fps']:.4g} frames a second\n")
        for side in ("real", "generated"):
            entry = law[side]
            if entry is None:
                lines.append(f"  {side:<10}the films are at no multiple of this rate\n")
                continue
            drift, count = entry["drift"], entry["count"]
            lines.append(
                f"  {side:<10}D {_shown(entry['diffusion'])} px^2/s, exponent "
                f"{_shown(entry['exponent'])}, drift x {_shown(drift['x'])}, y "
                f"{_shown(drift['y'])} px/s, {count['first']:.1f} -> {count['last']:.1f} blobs, "
                f"{entry['tracks']} tracks\n"
            )
        seeds = law["generated"]["over_seeds"]["diffusion"]
        if seeds["standard_error"] is not None:
            lines.append(
                f"  over seeds D {seeds['mean']:.3g} +- {seeds['standard_error']:.2g}"
                f" of {len(seeds['seeds'])}\n"
            )
    return "".join(lines)


def _shown(entry: dict[str, Any]) -> str:
    if entry["mean"] is None:
        return "unknown"
    interval = entry.get("interval")
    return f"{entry['mean']:.3g}" + (f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else "")


def picture(laws: Laws, path: Path) -> None:
    """Write a PNG: displacement by lag at every rate, and the fields at the first with both."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for k, law in enumerate(laws):
        for side, mark in (("real", "o"), ("generated", "-")):
            if law[side] is not None:
                points = [(e["lag"], e["mean"]) for e in law[side]["displacement"] if e["mean"]]
                label = f"{side}, {law['fps']:.3g} a second"
                axes[0].loglog(*np.array(points).reshape(-1, 2).T, mark, color=f"C{k}", label=label)
    axes[0].set(xlabel="lag, s", ylabel="mean square displacement, px²")
    axes[0].legend(fontsize=7)
    both = next((law for law in laws if law["real"] is not None), laws[0])
    top = _largest(both)
    for side, axis in zip(("real", "generated"), axes[1:], strict=True):
        if both[side] is not None:
            _field(axis, both[side]["fields"], top)
            axis.set_title(f"{side}, {both['fps']:.3g} a second", fontsize=9)
            figure.colorbar(axis.images[0], ax=axis, label="D, px²/s", shrink=0.8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _largest(law: dict[str, Any]) -> float:
    values = [
        np.array(law[side]["fields"]["diffusion"], float)
        for side in ("real", "generated")
        if law[side] is not None
    ]
    known = np.concatenate([value[np.isfinite(value)] for value in values])
    return float(known.max()) if len(known) else 1.0


def _field(axis: Any, fields: dict[str, Any], top: float) -> None:
    """Draw D by colour and drift by arrows; cells with few steps stay blank."""
    diffusion, right, down = (
        np.array(fields[name], float) for name in ("diffusion", "drift_x", "drift_y")
    )
    axis.imshow(diffusion, vmin=0, vmax=top, cmap="viridis")
    axis.quiver(right, -down, color="white", angles="uv")
    axis.set(xticks=[], yticks=[])
