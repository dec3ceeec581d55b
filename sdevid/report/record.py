"""What a run folder holds that the page can show; any of it may be missing yet."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sdevid.errors import UserError

Line = dict[str, float | None]


@dataclass(frozen=True)
class Record:
    """A run as its files tell it."""

    folder: Path
    config_text: str  # config.yaml as it stands; empty where there is none
    config: dict[str, Any]
    metrics: list[Line]
    results: dict[str, Any] | None
    pictures: dict[str, NDArray[Any]]
    ending: dict[str, Any] | None  # exit.json

    @property
    def clips(self) -> int:
        """Trained on so far."""
        return int(self.metrics[-1]["clips"] or 0) if self.metrics else 0

    @property
    def seconds(self) -> float | None:
        """From the first line of the metrics to the last, pauses over a minute left out."""
        times = [line["time"] for line in self.metrics if line.get("time") is not None]
        steps = np.diff(np.array(times, float))
        return (
            float(steps[steps < max(60.0, 5 * float(np.median(steps)))].sum())
            if len(steps)
            else None
        )

    def curve(self, name: str) -> tuple[list[float], list[float | None]]:
        """Clips and the values of one metric; None where it was not finite."""
        lines = [line for line in self.metrics if name in line]
        return [float(line["clips"] or 0) for line in lines], [line[name] for line in lines]


def read(folder: Path) -> Record:
    """The run in `folder`. Raises UserError where that is no run folder, or a file is damaged."""
    if not folder.is_dir():
        raise UserError(f"run folder {folder} does not exist")
    config, metrics = folder / "config.yaml", folder / "metrics.jsonl"
    if not config.is_file() and not metrics.is_file():
        raise UserError(
            f"{folder} holds neither config.yaml nor metrics.jsonl, so it is no run folder; give "
            "the run_dir of a training"
        )
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return Record(
        folder=folder,
        config_text=text,
        config=yaml.safe_load(text) or {},
        metrics=_lines(metrics),
        results=_json(folder / "results.json"),
        pictures=_arrays(folder / "results.npz"),
        ending=_json(folder / "exit.json"),
    )


def _lines(path: Path) -> list[Line]:
    """The whole lines of a metrics file; one torn by a crash is passed over."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("clips"), int | float):
            found.append({k: v for k, v in line.items() if isinstance(v, int | float | None)})
    return found


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it or make it anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object; delete it or make it anew")
    return content


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        return {}
    try:
        with np.load(path) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete it or evaluate again") from error
