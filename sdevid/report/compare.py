"""Several runs on one page: curves overlaid, differences of config, figures side by side."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdevid.evaluate import registry
from sdevid.report.history import warnings
from sdevid.report.plot import Series, plot
from sdevid.report.record import Record
from sdevid.report.training import TERMS, thin
from sdevid.report.words import measured, number, table

COLOURS = ("generated", "real", "fourth", "exact", "bad", "truth")
CURVES = (*TERMS, ("loss", "Loss"), ("grad_norm", "Gradient norm"), ("clips_per_s", "Clips/s"))


def sections(runs: Sequence[Record]) -> Iterator[str]:
    """Yield the parts of the page for two or more runs."""
    yield _overview(runs)
    yield f"<h2>Curves</h2><p>One colour a run.</p>{_curves(runs)}"
    yield _differences(runs)
    yield _figures(runs)


def _overview(runs: Sequence[Record]) -> str:
    rows = []
    for run in runs:
        last = run.metrics[-1] if run.metrics else {}
        ending = str((run.ending or {}).get("reason", "not ended"))
        rows.append(
            [
                html.escape(_name(run)),
                f"{run.clips:,}",
                number(last.get("loss"), 4),
                html.escape(ending),
                "yes, on its page" if warnings(run) else "",
            ]
        )
    return f"<h2>Runs</h2>{table(['run', 'clips', 'last loss', 'ending', 'warnings'], rows)}"


def _curves(runs: Sequence[Record]) -> str:
    panels = []
    for name, label in CURVES:
        drawn = [
            Series(_name(run), *thin(*run.curve(name)), _colour(i, len(runs)))
            for i, run in enumerate(runs)
            if run.curve(name)[0]
        ]
        if drawn:
            panels.append(plot(label, drawn, "clips"))
    return f'<div class="plots">{"".join(panels)}</div>'


def _colour(number: int, count: int) -> str:
    """Choose a colour of the style sheet; of many runs, hues at even distances."""
    if count <= len(COLOURS):
        return COLOURS[number]
    return f"hsl({360 * number / count:.0f} 65% 50%)"


def _differences(runs: Sequence[Record]) -> str:
    flat = [dict(_flat(run.config)) for run in runs]
    names = sorted({name for settings in flat for name in settings})
    rows = []
    for name in names:
        values = [settings.get(name) for settings in flat]
        if any(value != values[0] for value in values):
            rows.append([html.escape(name), *(html.escape(str(value)) for value in values)])
    if not rows:
        return "<h2>Differences of config</h2><p>None.</p>"
    head = ["setting", *map(_name, runs)]
    return f"<h2>Differences of config</h2>{table(head, rows)}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _figures(runs: Sequence[Record]) -> str:
    figures = [
        {(row.section, row.name): row.entry for row in registry.rows(run.results)}
        if run.results
        else {}
        for run in runs
    ]
    names = list(dict.fromkeys(name for entries in figures for name in entries))
    if not names:
        return "<h2>Figures</h2><p>None of the runs was evaluated.</p>"
    rows = [
        [
            html.escape(f"{section}: {name}"),
            *(measured(e.get((section, name)), 4) for e in figures),
        ]
        for section, name in names
    ]
    return f"<h2>Figures</h2>{table(['', *map(_name, runs)], rows)}"


def _name(run: Record) -> str:
    return run.folder.resolve().name
