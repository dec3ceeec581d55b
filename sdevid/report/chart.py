"""Line charts as inline SVG, coloured by the page's style sheet: they follow light and dark."""

from __future__ import annotations

import html
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 8, 36

MINUS = "\u2212"

Values = Sequence[float | None]  # None leaves a gap


@dataclass(frozen=True)
class Series:
    """One curve; `colour` is a class of the style sheet."""

    name: str
    x: Sequence[float]
    y: Values
    colour: Literal["generated", "real", "truth", "exact", "fourth"] = "generated"
    kind: Literal["line", "dashed", "points"] = "line"
    error: Values | None = None  # half length of a bar at each point


@dataclass(frozen=True)
class Scale:
    """A range of values laid on a range of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    note: str = "",
    from_zero: bool = False,
) -> str:
    """A titled figure. Without `limits` the y axis holds every value and bar; they cut it.

    `from_zero`: the x axis begins at 0.
    """
    named = [one for one in series if _points(one)]
    heading = f'<div class="chart-title">{html.escape(title)} <small>{html.escape(unit)}</small>'
    if not named:
        return f'<figure>{heading}</div><p class="quiet">Nothing measured.</p></figure>'
    xs = [0.0] if from_zero else []
    xs += [x for one in named for x, _, _ in _points(one)]
    ys = [y + sign * e for one in named for _, y, e in _points(one) for sign in (-1, 1)]
    low, high = limits or _padded(min(ys), max(ys))
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1
    across = Scale(min(xs), right, LEFT, WIDTH - RIGHT)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP)
    drawn = "".join(_draw(one, across, up) for one in named)
    clip = f"clip{zlib.crc32((title + drawn).encode()):08x}"
    caption = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    return (
        f"<figure>{heading}</div>{_legend(named)}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'<clipPath id="{clip}"><rect x="{LEFT - 4}" y="{TOP - 4}" '
        f'width="{WIDTH - LEFT - RIGHT + 8}" height="{HEIGHT - TOP - BOTTOM + 8}"/></clipPath>'
        f'{_frame(across, up, x_label)}<g clip-path="url(#{clip})">{drawn}</g></svg>'
        f"{caption}</figure>"
    )


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten) from `low` to `high`."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def told(value: float) -> str:
    """A number as an axis says it: 25k, 1.2M, 0.05."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and letter == "M"):
            return f"{value / size:g}{letter}".replace("-", MINUS)
    return f"{round(value, 10):g}".replace("-", MINUS)


def _points(one: Series) -> list[tuple[float, float, float]]:
    errors: Iterable[float | None] = one.error or [None] * len(one.x)
    return [
        (x, y, e if e is not None and math.isfinite(e) else 0.0)
        for x, y, e in zip(one.x, one.y, errors, strict=True)
        if y is not None and math.isfinite(y)
    ]


def _padded(low: float, high: float) -> tuple[float, float]:
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    pad = 0.06 * (high - low)
    return (low if low == 0 else low - pad), high + pad


def _frame(across: Scale, up: Scale, x_label: str) -> str:
    parts = []
    for value in ticks(up.low, up.high, 6):
        y = up(value)
        kind = "axis" if value == 0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{told(value)}</text>'
        )
    floor = HEIGHT - BOTTOM
    for value in ticks(across.low, across.high, 6):
        x = across(value)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
            f'<text x="{x:.1f}" y="{floor + 15}" text-anchor="middle">{told(value)}</text>'
        )
    place = f'x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end"'
    parts.append(f"<text {place}>{html.escape(x_label)}</text>")
    return "".join(parts)


def _draw(one: Series, across: Scale, up: Scale) -> str:
    if one.kind == "points":
        parts = []
        for x, y, error in _points(one):
            at = across(x)
            if error:
                parts.append(
                    f'<line class="bar" x1="{at:.1f}" x2="{at:.1f}" '
                    f'y1="{up(y - error):.1f}" y2="{up(y + error):.1f}"/>'
                )
            parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{up(y):.1f}" r="3"/>')
        return f'<g class="{one.colour}">{"".join(parts)}</g>'
    path, pen = [], "M"
    for place, value in zip(one.x, one.y, strict=True):
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{across(place):.1f} {up(value):.1f}")
        pen = "L"
    dashed = " dashed" if one.kind == "dashed" else ""
    return f'<path class="line {one.colour}{dashed}" d="{"".join(path)}"/>'


def _legend(series: Sequence[Series]) -> str:
    if len(series) == 1 and not series[0].name:
        return '<div class="legend"></div>'
    entries = "".join(
        f'<span class="{one.colour}"><i class="{one.kind}"></i>'
        f"<em>{html.escape(one.name)}</em></span>"
        for one in series
    )
    return f'<div class="legend">{entries}</div>'
