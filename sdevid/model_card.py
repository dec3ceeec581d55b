"""The card of an exported model: what it is, on what it was trained, how good it was measured."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdevid import __version__
from sdevid.config import Config
from sdevid.report.results_file import read_results

NAME = "README.md"


def model_card(config: Config, parameters: int, run: Path) -> str:
    """Write the card, as the hub reads it, of a model with that many parameters.

    Figures are those of `results.json` in the folder `run`, where `evaluate` has written one. The
    licence is a line for whoever shares the model to fill in. No path of the site is named.
    """
    parts = _front_matter(), _description(config, parameters), _commands(run), _figures(run), _use()
    return "\n".join(line for part in parts for line in part)


def _front_matter() -> Iterator[str]:
    yield "---"
    yield "library_name: sdevid"
    yield "tags: [video-generation, stochastic-differential-equations]"
    yield "license: other  # yours to fill in: the licence of weights and data"
    yield "---"
    yield ""


def _description(config: Config, parameters: int) -> Iterator[str]:
    yield f"# A neural SDE of video ({config.model_type})"
    yield ""
    yield (
        f"{parameters:,} parameters; {config.sequence_length} frames of {config.frame_text} pixels,"
        f" {config.channels} channel(s), at {config.fps:g} frames a second. Made by sdevid "
        f"{__version__}."
    )
    yield ""
    yield "## Data"
    yield ""
    yield "Yours to fill in: what was filmed, by whom, under which licence, and what is not in it."
    yield ""


def _commands(run: Path) -> Iterator[str]:
    """Yield how to train and measure the model again, without the site's paths."""
    yield "## Command"
    yield ""
    yield "```bash"
    yield "sdevid train --config config.yaml data=YOUR_SHARDS run_dir=RUN"
    protocol = _results(run).get("protocol", {})
    options = {"split": "split", "clips": "num_clips", "samples": "samples", "context": "context"}
    words = [f"--{name} {protocol[key]}" for key, name in options.items() if key in protocol]
    yield " ".join(["sdevid evaluate --model_path RUN", *words])
    yield "```"
    yield ""


def _results(run: Path) -> dict[str, Any]:
    return read_results(run / "results.json") or {}


def _figures(run: Path) -> Iterator[str]:
    yield "## Measured"
    yield ""
    results = _results(run)
    if not results:
        yield "Nothing was measured on held-out video (`sdevid evaluate`)."
        yield ""
        return
    protocol = results.get("protocol", {})
    yield f"On {protocol.get('clips', '?')} clips of the split {protocol.get('split', '?')}:"
    yield ""
    yield "| figure | mean | 95 % interval |"
    yield "| --- | --- | --- |"
    for name, entry in _estimates(results):
        interval = entry.get("interval")
        held = f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else ""
        yield f"| {_cell(name)} | {entry['mean']:.4g} | {held} |"
    yield ""


def _cell(text: str) -> str:
    """Escape a text of a file for one cell of a table."""
    return " ".join(html.escape(text).replace("|", "&#124;").split())


def _estimates(results: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every finite {"mean": ..., "interval": ...} in the results, by its path."""
    for name, value in results.items():
        if not isinstance(value, dict):
            continue
        mean = value.get("mean")
        if isinstance(mean, int | float) and math.isfinite(mean):
            yield f"{prefix}{name}", value
        yield from _estimates(value, f"{prefix}{name}, ")


def _use() -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "import sdevid"
    yield ""
    yield 'model = sdevid.VideoSDE.from_pretrained("THIS_FOLDER")'
    yield "video = model.sample(num_samples=2, num_frames=32)"
    yield "```"
    yield ""
