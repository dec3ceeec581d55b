"""Run metrics on a model and write what they say."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdevid import export
from sdevid.atomic_file import written_aside
from sdevid.data import stream
from sdevid.errors import UserError
from sdevid.evaluate import progress, provenance, registry, table
from sdevid.evaluate.context import PICTURES, EvalContext, EvalOptions, open_context
from sdevid.evaluate.metric import Metric, Results
from sdevid.evaluate.progress import evenly
from sdevid.sample.write import Pixels, as_uint8, shown


def evaluate_and_write(options: EvalOptions, asked: str | None, output: Path) -> str:
    """Evaluate, write results.json, its table and the page's pictures; return the table.

    `asked` names metrics, as `registry.choose` reads it. Raises UserError before any long work.
    """
    started = time.perf_counter()
    _check_output(output)
    context = open_context(options)
    results = evaluate(context, registry.choose(asked, context))
    results["provenance"] = {
        "command": provenance.command("evaluate"),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
    }
    text = table.text(registry.rows(results))
    try:
        with (
            written_aside(output.with_suffix(".txt")) as words,
            written_aside(output) as figures,
            written_aside(output.with_suffix(".npz")) as pictures,
        ):
            np.savez_compressed(pictures, allow_pickle=False, **_pictures(context))
            figures.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", "utf-8")
            words.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error}") from error
    return text


def _check_output(output: Path) -> None:
    """Raise UserError where the results could not be written."""
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; make it")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; give a file, as {output / 'results.json'}")
    if output.suffix in (".txt", ".npz"):
        raise UserError(
            f"--output {output}: the table and the pictures have that ending; give .json"
        )
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {output}: the folder {output.parent} cannot be written")


def evaluate(context: EvalContext, metrics: Sequence[Metric]) -> Results:
    """Run `metrics` and collect their results, ready for JSON."""
    for metric in metrics:
        metric.prepare(context)
    results: Results = {"protocol": _protocol(context, metrics)}
    for metric in progress.each(metrics):
        results |= metric.run(context)
    return results


def _protocol(context: EvalContext, metrics: Sequence[Metric]) -> dict[str, Any]:
    options, config = context.options, context.config
    return {
        "model_path": str(options.model_path),
        "model_type": config.model_type,
        "checkpoint": export.find(options.model_path).name,
        "weights": options.weights,
        "data": context.index.folder.location,
        "split": options.split,
        "metrics": [metric.name for metric in metrics],
        "left_out": registry.left_out(context),
        "clips": len(context.clips),
        "clips_in_split": len(context.index),
        "videos": len({context.index.clips[clip].source for clip in context.clips}),
        "frames": config.sequence_length,
        "fps": config.fps,
        "context": options.context,
        "samples": options.samples,
        "rollouts": options.rollouts,
        "rollout_frames": options.rollout_frames,
        "seed": options.seed,
        "truth": context.truth,
    }


def _pictures(context: EvalContext) -> dict[str, Pixels]:
    """Collect free and real videos, and what the metrics add."""
    clips = evenly(PICTURES, len(context.index))
    real = stream.fixed(context.index, context.config, clips).values
    return {
        "generated": as_uint8(context.free[: len(real), : context.config.sequence_length]),
        "real": shown(real),
        "context": np.array(context.options.context, np.uint8),
        "fps": np.array(context.config.fps),
        **context.pictures,
    }
