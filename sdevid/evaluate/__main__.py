"""Evaluate a trained model on held-out clips."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sdevid import clock
from sdevid.command_line import command_parser, guarded
from sdevid.evaluate.context import EvalOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate`: the fields of EvalOptions, the metrics and the output."""
    default = {field.name: field.default for field in fields(EvalOptions)}

    def number(name: str, what: str) -> None:
        parser.add_argument(f"--{name}", type=int, default=default[name], help=what)

    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--data", help="folder of shards, a path or URL (default: that of the training)")
    add("--output", type=Path, help="file to write (default: results.json in the model's folder)")
    add("--split", default="val", help="held-out split")
    clock.add_arguments(parser, None, "of the clips; default: that of training")
    add("--metrics", "--measures", help="auto (default), all, or names: docs/evaluation.md")
    add("--task", choices=["ahead", "between"], default="ahead", help="between: fill gaps in clips")
    add("--every", type=int, help="between: give every so-many-th frame (default: the two ends)")
    number("num_clips", "held-out clips, at most")
    number("samples", "futures of each clip")
    add("--context", type=int, help="frames that a prediction is given (default: 5 at most)")
    number("rollouts", "free videos to track")
    number("rollout_frames", "frames of each")
    number("draws", "posterior draws of the IWAE bound")
    number("best_of", "futures of a clip of digits")
    add("--fvd_i3d", type=Path, help="a TorchScript I3D, for FVD")
    add("--lpips", type=Path, help="a TorchScript LPIPS")
    add("--features", type=Path, help="TorchScript, ONNX or SqueezeNet's npz, for KID")
    add("--set_size", type=int, help="videos of a set, for FVD and KID (default: 2048 at most)")
    add(
        "--set_context",
        choices=("none", "in", "out"),
        default="none",
        help="sets generated freely, or predicted with observed frames in or left out",
    )
    add("--values", help="what grey levels stand for, such as log:0.1:100:mm/h (default: 0 to 255)")
    add("--thresholds", type=_numbers, default=(), help="events to score, such as 1,5,10")
    add("--spectra", action="store_true", help="also compare power spectra of futures")
    add("--growing_noise", action="store_true", help="fit how noise grows to training clips")
    number("seed", "of the samples")
    add("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw weights")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `evaluate`, and report a user's mistake without a traceback. Returns the exit code."""
    parser = command_parser(
        "evaluate",
        "Measure a trained model on held-out clips.",
        "sdevid evaluate --model_path runs/mine --output runs/mine/results.json",
    )
    add_arguments(parser)
    parser.add_output_arguments()
    options = vars(parser.parse_args(arguments))
    asked, output = options.pop("metrics"), options.pop("output")
    if options["context"] is None:
        options |= {"context": EvalOptions.context, "context_fits": True}
    if options.pop("task") == "between":
        asked = f"between,{asked}" if asked else "between"
    return guarded("evaluate", lambda: _evaluate(options, asked, output))


def _evaluate(values: dict[str, Any], asked: str | None, output: Path | None) -> int:
    from sdevid.evaluate import evaluation

    options = EvalOptions(**values)
    print(
        evaluation.evaluate_and_write(
            options, asked, output or options.model_path / "results.json"
        ),
        end="",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
