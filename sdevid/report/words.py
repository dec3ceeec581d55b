"""Numbers and tables as the page says them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

Measure = dict[str, Any] | None  # {"mean": ..., "standard_error": ...} of the results

NOT_MEASURED = "\u2013"
MINUS = "\u2212"


def number(value: float | None, digits: int = 3) -> str:
    """Format `value` with so many significant digits and thousands apart."""
    if value is None:
        return NOT_MEASURED
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    if value == 0:
        return "0"
    text = f"{value:#.{digits}g}".rstrip(".")
    return (f"{value:.{digits}g}" if "e" in text else text).replace("-", MINUS)


def measured(entry: Measure, digits: int = 3) -> str:
    """Format the mean and, small, its standard error with two digits.

    `digits` are those of a mean without an error.
    """
    if entry is None or entry.get("mean") is None:
        return NOT_MEASURED
    mean, error = entry["mean"], entry.get("standard_error")
    if not error:
        return number(mean, digits)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    text = f"{mean:,.{decimals}f}".replace("-", MINUS)
    return f"{text} <small>± {error:,.{decimals}f}</small>"


def between(entry: dict[str, Any], digits: int = 3) -> str:
    """Format the 95 % interval of a measure in brackets; empty where it has none."""
    if not entry.get("interval"):
        return ""
    low, high = entry["interval"]
    return f" (95 % interval {number(low, digits)} to {number(high, digits)})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[int] = ()) -> str:
    """Build a table of rows of HTML cells under plain headings; rows in `best` are set off."""
    heading = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = ""
    for i, row in enumerate(rows):
        kind = ' class="best"' if i in best else ""
        body += "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell in row) + "</tr>"
    return (
        f'<div class="scroll"><table><thead><tr>{heading}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def missing(what: str, command: str) -> str:
    """Say what is not there yet, and the command that makes it."""
    return f'<div class="missing"><p>{html.escape(what)}</p><pre>{html.escape(command)}</pre></div>'


def duration(seconds: float) -> str:
    """Format seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
