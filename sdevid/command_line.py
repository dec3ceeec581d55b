"""The door of every command: its parser, with an example first, and what a fault says."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sdevid import console
from sdevid.errors import UserError, file_fault, is_exhausted
from sdevid.exit_code import ExitCode

INTERRUPTED = 128 + signal.SIGINT  # as a shell calls it
MOST_COUNT = 2**20  # clips, frames or samples that an option may ask for


def guarded(name: str, command: Callable[[], int], *, every_rank: bool = True) -> int:
    """Run `command` and return its exit code; a user's mistake prints one message and gives 2.

    A mistake is a UserError, a file that the system refuses, or memory that ran out. Of several
    ranks each prints it with its number, or with `every_rank` false only the first.
    """
    try:
        return command()
    except UserError as error:
        fault = str(error)
    except OSError as error:
        if error.filename is None:  # not of a file that a user named
            raise
        fault = file_fault(error)
    except (MemoryError, RuntimeError) as error:
        if not is_exhausted(error):
            raise
        reason = (str(error).splitlines() or ["no more is free"])[0]
        fault = f"memory ran out ({reason}); ask for fewer or smaller ones at once"
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"  # or a leftover
    if rank == "0" or every_rank:
        prefix = name if rank == "0" else f"rank {rank}"
        print(f"{prefix}: {console.redacted(fault)}", file=sys.stderr)
    return ExitCode.USER


def command_parser(name: str, description: str, example: str) -> CommandParser:
    """Build the parser of `sdevid NAME`; `example` may hold several lines."""
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    return CommandParser(
        prog=f"sdevid {name}",
        description=description,
        example=lines,
        formatter_class=_Help,
    )


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose help begins with an example."""

    def __init__(self, *, example: str, **options: Any) -> None:
        super().__init__(**options)
        self._example = example

    def add_output_arguments(self) -> None:
        """Add `--quiet` and `--log_level`, which `parse_args` puts into force."""
        self.add_argument("--quiet", action="store_true", help="no progress, warnings alone")
        self.add_argument(
            "--log_level",
            choices=console.LEVELS,
            default="info",
            help="least of what is said; debug: libraries speak too",
        )

    def add_address_arguments(self, port: int) -> None:
        """Add `--host` and `--port` of a server; by default loopback, and `port`."""
        self.add_argument(
            "--host",
            default="127.0.0.1",
            help="address to listen on; any but loopback serves other machines",
        )
        self.add_argument("--port", type=_port, default=port, help="to listen on; 0: any free one")

    def parse_args(self, *words: Any, **options: Any) -> Any:
        """Parse options and positionals in any order; output options hold from here on."""
        parsed = super().parse_intermixed_args(*words, **options)
        if hasattr(parsed, "log_level"):
            console.set_level("warning" if parsed.quiet else parsed.log_level)
            del parsed.quiet, parsed.log_level
        return parsed

    def format_usage(self) -> str:
        """Format one line: the command, what it needs, and `[options]` for the rest."""
        actions = [a for a in self._actions if not isinstance(a, argparse._HelpAction)]
        needed = [f"{a.option_strings[0]} {_value(a)}" for a in actions if a.required and _named(a)]
        positional = [_place(a) for a in actions if not _named(a)]
        return f"usage: {' '.join([self.prog, *needed, '[options]', *positional])}\n"

    def format_help(self) -> str:
        """Format the example, usage, description, and the options with their defaults."""
        self.usage = self.format_usage().removeprefix("usage: ").rstrip()
        return f"example:\n{self._example}\n\n{super().format_help()}"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"is {text}, but must be a number from 0 to 65535")
    return int(text)


def _named(action: argparse.Action) -> bool:
    return bool(action.option_strings)


def _value(action: argparse.Action) -> str:
    return str(action.metavar or action.dest.upper())


def _place(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    forms = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}
    return forms.get(str(action.nargs), name)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keep the lines of the description; end an option's help with its default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        is_flag = action.nargs == 0
        silent = action.default is None or action.default in ("", (), [], argparse.SUPPRESS)
        if silent or is_flag or action.required or "default" in text:
            return text
        return f"{text} (default: %(default)s)"

    def _get_default_metavar_for_positional(self, action: argparse.Action) -> str:
        return action.dest.upper()
