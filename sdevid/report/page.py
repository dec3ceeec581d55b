"""The work of `report`: a run folder as one HTML file that needs nothing else."""

from __future__ import annotations

import argparse
import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdevid.atomic_file import written_aside
from sdevid.errors import UserError
from sdevid.evaluate import provenance
from sdevid.report import (
    cards,
    compare,
    ensembles,
    fans,
    findings,
    forecasts,
    history,
    law,
    samples,
    training,
)
from sdevid.report.document import document
from sdevid.report.record import Record, read
from sdevid.report.words import duration, missing

NAME = "report.html"
COMPARED = "compare.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `report`."""
    parser.add_argument("run_dir", type=Path, nargs="+", help="folder of a run; several: compared")
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: report.html in the run; of several, its compare.html)",
    )


def write_page(args: argparse.Namespace) -> int:
    """Write the page of a run, or of several beside each other."""
    records = [read(folder) for folder in args.run_dir]
    name = NAME if len(records) == 1 else COMPARED
    target = args.output or args.run_dir[0] / name
    content = page(records[0]) if len(records) == 1 else comparison(records)
    try:
        with written_aside(target) as aside:
            aside.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}") from error
    print(target)
    return 0


def page(record: Record, *, refreshed: bool = False) -> str:
    """Build the whole page of one run.

    `refreshed`: it looks for a newer one, as `watch` serves it. Raises UserError where a file of
    the run is out of form, whatever it holds.
    """
    with _files_are_told(record):
        return _page(record, refreshed)


@contextmanager
def _files_are_told(record: Record) -> Iterator[None]:
    """Turn what a page raises for fields that files lack, or misname, into UserError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"results.json, results.npz or config.yaml in {record.folder} are not as evaluate and "
            f"train write them ({type(error).__name__}: {str(error)[:200]}); make them anew"
        ) from error


def _page(record: Record, refreshed: bool) -> str:
    name = record.folder.resolve().name
    sections = [history.warnings(record)]
    if record.results is None:
        sections.append(
            missing("results.json is not there yet: nothing was measured.", _evaluate(record))
        )
    else:
        sections.append(cards.summary(record))
    sections += [law.section(record), samples.over_training(record), training.bound(record)]
    if record.results is not None:
        sections += [findings.videos(record), findings.prediction(record), fans.fans(record)]
        sections += [findings.motion(record), forecasts.futures(record), forecasts.failures(record)]
        sections += [ensembles.rates(record), ensembles.futures(record), ensembles.digits(record)]
    sections += [training.diagnostics(record), ensembles.figures(record)]
    sections += [history.section(record), _making(record)]
    return document(name, _head(record), sections, refreshed=refreshed)


def comparison(records: list[Record]) -> str:
    """Build the page of several runs."""
    names = ", ".join(record.folder.resolve().name for record in records)
    head = f'<h1>{len(records)} runs</h1><p class="quiet">{html.escape(names)}</p>'
    with _files_are_told(records[0]):
        return document(names, head, compare.sections(records))


def _evaluate(record: Record) -> str:
    return f"python -m sdevid evaluate --model_path {record.folder}"


def _head(record: Record) -> str:
    config = record.config
    parts = []
    if config:
        side, rate = config["frame_size"], config["fps"]
        width = config.get("frame_width") or side
        parts.append(
            f"{config['model_type']} on {width}x{side} video, "
            f"{config['sequence_length']} frames at {rate:g} a second"
        )
    if record.metrics:
        spent = record.seconds
        took = f" in {duration(spent)}" if spent else ""
        parts.append(f"{record.clips:,} clips trained on{took}")
    if record.ending:
        parts.append(f"ended: {record.ending.get('reason', 'unknown')}")
    elif record.metrics:
        parts.append("not ended yet")
    name = html.escape(record.folder.resolve().name)
    return f'<h1>{name}</h1><p class="quiet">{html.escape("; ".join(parts))}</p>'


def _making(record: Record) -> str:
    config = html.escape(record.config_text) or "config.yaml is not there."
    commands = [f"python -m sdevid train --config {record.folder / 'config.yaml'}"]
    rows = []
    if record.results is not None:
        origin = record.results["provenance"]
        commands.append(origin["command"])
        kind = origin["machine"]
        gpus = ", ".join(kind["gpus"]) or "none"
        rows = [
            (
                "evaluated on",
                f"{kind['processor']}, {kind['cores']} cores, {kind['memory_gib']} GiB",
            ),
            ("accelerators", gpus),
            ("system", kind["system"]),
            ("versions", ", ".join(f"{k} {v}" for k, v in origin["versions"].items())),
            ("evaluation took", duration(origin["seconds"])),
            ("model", _model(record)),
        ]
    else:
        versions = ", ".join(f"{k} {v}" for k, v in provenance.versions().items())
        rows = [("versions, of this page", versions)]
    listed = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in rows)
    shown = html.escape("\n".join([*commands, f"python -m sdevid report {record.folder}"]))
    return (
        f"<h2>How it was made</h2><pre>{shown}</pre><dl>{listed}</dl>"
        f"<details><summary>Config, with every default</summary><pre>{config}</pre></details>"
    )


def _model(record: Record) -> str:
    assert record.results is not None
    protocol = record.results["protocol"]
    return f"{protocol['checkpoint']}, {protocol['weights']} weights, seed {protocol['seed']}"
