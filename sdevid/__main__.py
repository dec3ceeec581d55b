"""`python -m sdevid COMMAND`: one door to training, sampling, evaluation, report and export."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sdevid import __version__
from sdevid.errors import UserError

USER_FAULT = 2  # exit code

_ELSEWHERE = {  # commands with a door of their own: `python -m sdevid.COMMAND`
    "sample": "generate video with a trained model",
    "evaluate": "measure a trained model on held-out clips",
    "report": "write a run's page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit code is 2, after one message, for what a user can put right."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in _ELSEWHERE:
            return _delegate(given[0], given[1:])
        chosen = _parser().parse_args(given)
        command: Callable[[argparse.Namespace], int] = chosen.run
        return command(chosen)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"sdevid: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr)
        return USER_FAULT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdevid", description="Trains neural SDEs on video and generates video from them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train = commands.add_parser("train", help="train, or carry on where the run stopped")
    train.add_argument("--config", type=Path, required=True, help="YAML file; see configs/")
    train.add_argument("--dry-run", action="store_true", help="say what it would take, and stop")
    train.add_argument("settings", nargs="*", metavar="key=value", help="settings over the file's")
    train.set_defaults(run=_train)
    preflight = commands.add_parser("preflight", help="look whether the nodes are fit to train")
    preflight.add_argument("--config", type=Path, required=True, help="YAML file; see configs/")
    preflight.add_argument("settings", nargs="*", metavar="key=value")
    preflight.set_defaults(run=_preflight)
    export = commands.add_parser("export", help="write a run's weights as safetensors and YAML")
    export.add_argument("--model_path", type=Path, required=True, help="run or checkpoint folder")
    export.add_argument("--output_dir", type=Path, required=True)
    export.add_argument("--weights", choices=["ema", "raw"], default="ema")
    export.set_defaults(run=_export)
    for name, what in _ELSEWHERE.items():
        commands.add_parser(name, help=what, add_help=False)
    return parser


def _train(chosen: argparse.Namespace) -> int:
    from sdevid import config

    settings = config.load(chosen.config, chosen.settings)
    if chosen.dry_run:
        from sdevid.train.opening import dry_run

        print(dry_run(settings))
        return 0
    from sdevid.train.run import run

    return run(settings)


def _preflight(chosen: argparse.Namespace) -> int:
    from sdevid import config
    from sdevid.train import preflight
    from sdevid.train.world import open_world

    settings = config.load(chosen.config, chosen.settings)
    with open_world() as world:
        preflight.check(settings, world)
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from sdevid import export

    written = export.export(chosen.model_path, chosen.output_dir, chosen.weights)
    print(f"{written} ({written.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _delegate(command: str, arguments: Sequence[str]) -> int:
    code: int = importlib.import_module(f"sdevid.{command}.__main__").main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
