"""Figures as text: a row's value with its error and interval, in columns."""

from __future__ import annotations

from collections.abc import Iterable

from sdevid.evaluate.metric import Entry, Row


def text(rows: Iterable[Row]) -> str:
    """Format the rows as plain text, in columns under the names of their sections."""
    lines: list[str] = []
    section, listed = "", list(rows)
    wide = max((len(row.name) for row in listed), default=0)
    for row in listed:
        if row.section != section:
            section = row.section
            lines += ["", section] if lines else [section]
        line = f"  {row.name:<{wide}}  {_value(row.entry):<22}  {_interval(row.entry):<24}"
        lines.append(f"{line}  {row.note}".rstrip())
    return "\n".join(lines) + "\n"


def plain(name: str) -> str:
    """Spell a key of the results as words."""
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """Format a value with four significant digits."""
    return "not measured" if value is None else f"{value:.4g}"


def short(entry: Entry) -> str:
    """Format an entry's mean with three significant digits, for notes."""
    return "not measured" if entry.get("mean") is None else f"{entry['mean']:.3g}"


def _value(entry: Entry) -> str:
    if entry.get("mean") is None:
        return "not measured"
    mean, error = entry["mean"], entry.get("standard_error")
    digits = "10.1f" if abs(mean) >= 1000 else "10.4g"
    return f"{mean:{digits}}" + ("" if error is None else f" ± {error:.2g}")


def _interval(entry: Entry) -> str:
    if entry.get("interval") is None:
        return ""
    low, high = entry["interval"]
    digits = ".1f" if abs(low) >= 1000 else ".4g"
    return f"95 %: {low:{digits}} to {high:{digits}}"
