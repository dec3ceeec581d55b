"""Line plots drawn by uPlot in the page: values under the pointer, zoom by dragging, a log axis.

uPlot (MIT, 50 KB) is embedded whole: of the plotting libraries that draw offline it is the one
that does not outweigh the page. Plotly takes 4.5 MB and Vega 0.8 MB for the same lines.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["line", "dashed", "points"]
Values = Sequence[float | None]  # None leaves a gap


@dataclass(frozen=True)
class Series:
    """One curve; `colour` is a variable of the style sheet, or a CSS colour."""

    name: str
    x: Sequence[float]
    y: Values
    colour: str = "generated"
    kind: Kind = "line"
    error: Values | None = None  # half length of a bar at each point


def plot(
    title: str,
    series: Sequence[Series],
    x_label: str,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    note: str = "",
    from_zero: bool = False,
) -> str:
    """Build a titled figure. Without `limits` the y axis holds every value and bar; they cut it.

    `from_zero`: the x axis begins at 0.
    """
    curves = [curve for curve in map(_curve, series) if curve["x"]]
    heading = f'<div class="plot-title">{html.escape(title)} <small>{html.escape(unit)}</small>'
    if not curves:
        return f'<figure>{heading}</div><p class="quiet">Nothing measured.</p></figure>'
    described = {
        "label": title,
        "x": x_label,
        "series": curves,
        "limits": limits,
        "from_zero": from_zero,
    }
    caption = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    summary = f"{title}: {', '.join(_summary(curve) for curve in curves)}"
    return (
        f"<figure>{heading}</div>"
        f'<div class="plot" role="img" aria-label="{html.escape(summary)}">'
        f'<script type="application/json">{embedded(described)}</script></div>{caption}</figure>'
    )


def embedded(value: Any) -> str:
    """Encode JSON for a script element: nothing in it closes the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _curve(one: Series) -> dict[str, Any]:
    errors = one.error or [None] * len(one.x)
    points = [
        (x, y, error if error is not None and math.isfinite(error) else None)
        for x, y, error in sorted(zip(one.x, map(_finite, one.y), errors, strict=True))
    ]
    if all(y is None for _, y, _ in points):
        points = []
    x, y, error = ([point[i] for point in points] for i in range(3))
    drawn = error if any(error) else None
    return {
        "name": one.name,
        "x": x,
        "y": y,
        "error": drawn,
        "colour": one.colour,
        "kind": one.kind,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _summary(curve: dict[str, Any]) -> str:
    last = next(y for y in reversed(curve["y"]) if y is not None)
    return f"{curve['name'] or 'last value'} {last:.4g}"
