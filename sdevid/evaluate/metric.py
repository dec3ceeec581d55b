"""What a metric is: one object that says what it needs, what it runs and how its figures read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sdevid.evaluate.context import EvalContext

Entry = dict[str, Any]  # {"mean", "standard_error", "interval"}, as in results.json
Results = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One figure of the table."""

    section: str
    name: str
    entry: Entry
    note: str = ""  # the figure to compare it with


def nothing(context: EvalContext) -> str | None:  # noqa: ARG001
    """Return None: the metric runs on any model and data."""
    return None


def unprepared(context: EvalContext) -> None:
    """Do nothing: there is nothing to prepare."""


@dataclass(frozen=True)
class Metric:
    """A metric of `evaluate`; it stands in one file and is listed in the registry.

    `run` returns entries of results.json, `rows` reads them there (and yields nothing where they
    are missing). `needs` says why the metric cannot run on this model and data, or None. `prepare`
    tries what the user gives (networks, packages) before any long work; it raises UserError.
    """

    name: str
    summary: str  # one line, for the documentation
    run: Callable[[EvalContext], Results]
    rows: Callable[[Results], Iterable[Row]]
    needs: Callable[[EvalContext], str | None] = nothing
    prepare: Callable[[EvalContext], None] = unprepared
    automatic: bool = True  # `--metrics auto` runs it where `needs` allows
