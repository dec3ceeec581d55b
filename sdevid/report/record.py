"""What a run folder holds that the page can show; any of it may be missing yet."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from sdevid.errors import UserError
from sdevid.report.law_file import LawFile, read_law
from sdevid.report.results_file import read_ending, read_results
from sdevid.settings.yaml_file import read_settings

Line = dict[str, float | None]

_MOST_PICTURES = 2**30  # bytes of results.npz, opened
_LINE = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Record:
    """A run as its files tell it."""

    folder: Path
    config_text: str  # config.yaml as it stands; empty where there is none
    config: dict[str, Any]
    metrics: list[Line]
    starts: list[Line]  # starts.jsonl: where each start began, and on how many processes
    results: dict[str, Any] | None
    law: LawFile | None
    pictures: dict[str, NDArray[Any]]
    ending: dict[str, Any] | None  # exit.json
    refused: dict[str, Any] | None  # exit-refused.json, of another start in the same folder

    @property
    def clips(self) -> int:
        """Number of clips trained on so far."""
        return int(self.metrics[-1]["clips"] or 0) if self.metrics else 0

    @property
    def seconds(self) -> float | None:
        """Seconds from the first line of the metrics to the last, without long pauses.

        A pause is over a minute and five times the median step.
        """
        times = [line["time"] for line in self.metrics if line.get("time") is not None]
        steps = np.diff(np.array(times, float))
        return (
            float(steps[steps < max(60.0, 5 * float(np.median(steps)))].sum())
            if len(steps)
            else None
        )

    def curve(self, name: str) -> tuple[list[float], list[float | None]]:
        """Return clips and the values of one metric; None where it was not finite."""
        lines = [line for line in self.metrics if name in line]
        return [float(line["clips"] or 0) for line in lines], [line[name] for line in lines]


def read(folder: Path) -> Record:
    """Read the run in `folder`.

    Raises UserError where that is no run folder, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"run folder {folder} does not exist")
    config, metrics = folder / "config.yaml", folder / "metrics.jsonl"
    if not config.is_file() and not metrics.is_file():
        raise UserError(
            f"{folder} holds neither config.yaml nor metrics.jsonl, so it is no run folder; give "
            "the run_dir of a training"
        )
    settings = read_settings(config) if config.is_file() else {}
    return Record(
        folder=folder,
        config_text=config.read_text(encoding="utf-8") if settings else "",
        config=settings,
        metrics=_lines(metrics),
        starts=_lines(folder / "starts.jsonl"),
        results=read_results(folder / "results.json"),
        law=read_law(folder / "law.json"),
        pictures=arrays(folder / "results.npz"),
        ending=read_ending(folder / "exit.json"),
        refused=read_ending(folder / "exit-refused.json"),
    )


def _lines(path: Path) -> list[Line]:
    """Read the whole lines of a metrics file; one torn by a crash is passed over."""
    records = []
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            line = _LINE.validate_json(text)
        except ValidationError:
            continue
        if isinstance(line.get("clips"), int | float):
            records.append({k: v for k, v in line.items() if isinstance(v, int | float | None)})
    return records


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file, none if it is missing. UserError where it is damaged or vast."""
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_PICTURES:
                raise ValueError(f"it opens to more than {_MOST_PICTURES >> 20} MiB")
        with np.load(path) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete it or evaluate again") from error
