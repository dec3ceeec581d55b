"""Dispatch `sdevid COMMAND` and turn a user's mistake into one message and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sdevid import __version__
from sdevid.command_line import guarded
from sdevid.console import protect
from sdevid.exit_code import ExitCode

USER_FAULT = ExitCode.USER


class Command(NamedTuple):
    """A command of the command line."""

    module: str  # its `main(arguments) -> exit code`, imported when it is asked for
    help: str


COMMANDS = {
    "shards": Command("sdevid.cli.shards", "cut videos, or draw them, into shards"),
    "check-shards": Command("sdevid.data.cut.check_command", "verify shards against their index"),
    "train-autoencoder": Command(
        "sdevid.cli.train_autoencoder", "train an autoencoder on the frames of shards"
    ),
    "convert-autoencoder": Command(
        "sdevid.cli.convert_autoencoder", "turn a published autoencoder into a folder"
    ),
    "train": Command("sdevid.cli.train", "train, or carry on where the run stopped"),
    "sample": Command("sdevid.sample.__main__", "generate video with a trained model"),
    "evaluate": Command("sdevid.evaluate.__main__", "measure a trained model on held-out clips"),
    "law": Command("sdevid.cli.law", "read the law of motion off a model of particles, in units"),
    "export": Command("sdevid.cli.export", "write a run's weights, settings and model card"),
    "report": Command("sdevid.report.__main__", "write the page of a run"),
    "watch": Command("sdevid.cli.watch", "serve the pages of runs while they train"),
    "studio": Command("sdevid.cli.studio", "try a model in the browser"),
    "settings": Command("sdevid.cli.settings", "list every setting with unit, default and meaning"),
    "doctor": Command("sdevid.cli.doctor", "say what this machine has, lacks, and what that costs"),
    "preflight": Command("sdevid.cli.preflight", "look whether the nodes are fit to train"),
    "slurm-scripts": Command("sdevid.cli.slurm_scripts", "lay the launch and Slurm scripts"),
}

_EXAMPLE = """\
example:
  sdevid shards --dataset custom --input_dir my_videos --output_dir data/mine
  sdevid train --config default data=data/mine run_dir=runs/mine
  sdevid sample --model_path runs/mine --output_dir runs/mine/samples

exit codes: 0 finished; 2 yours to mend, said in one message; 3 stopped or preempted, the same
command carries on; 4 training was lost; 1 anything else
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 2, after one message, for a user's mistake."""
    protect()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0].startswith("-"):
        _parser().parse_args(words)
        return USER_FAULT
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(COMMANDS)}"
        print(f"sdevid: {name} is not a command; {hint}", file=sys.stderr)
        return USER_FAULT
    command: Callable[[Sequence[str]], int] = importlib.import_module(COMMANDS[name].module).main
    return guarded("sdevid", lambda: command(rest))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    listed = "\n".join(f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="sdevid",
        usage="sdevid COMMAND [arguments]   (sdevid COMMAND --help shows an example)",
        description=f"Train neural SDEs on video and generate video from them.\n\n{_EXAMPLE}",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sdevid {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser
