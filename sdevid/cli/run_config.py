"""The config of a run as the command line gives it: a packaged name or a file, and overrides."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sdevid import config as configs
from sdevid.config import Config
from sdevid.console import say
from sdevid.errors import UserError

PACKAGED = Path(__file__).resolve().parents[1] / "configs"


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` (or a first positional) and `key=value` overrides."""
    names = ", ".join(path.stem for path in sorted(PACKAGED.glob("*.yaml")))
    parser.add_argument("--config", metavar="NAME|FILE", help=f"one of {names}, or a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings over the config's, with dots"
    )


def parse_with_config(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, Config]:
    """Parse the command line and load the config it names. Raises UserError with the right form."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _refuse_settings_as_options(parser, words)
    options = parser.parse_args(words)
    overrides, chosen = list(options.overrides), options.config
    if chosen is None and overrides and "=" not in overrides[0]:
        chosen = overrides.pop(0)
    if chosen is None:
        raise UserError("no config is given; e.g. --config default, or --config ./mine.yaml")
    return options, configs.load(config_path(chosen), overrides, _say_on_main_rank)


def _say_on_main_rank(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        say(text)


def _refuse_settings_as_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    known = {text for action in parser._actions for text in action.option_strings}
    for index, option in enumerate(words):
        name, equals, value = option[2:].partition("=")
        if not option.startswith("--") or f"--{name}" in known:
            continue
        following = "".join(words[index + 1 : index + 2])
        value = value if equals or following.startswith("-") else following
        raise UserError(
            f"{option} is not an option; a setting is given as {name}={value or 'VALUE'}"
        )


def config_path(chosen: str) -> Path:
    """Find the YAML file that `chosen` means: a path, or the name of a packaged config."""
    path = Path(chosen)
    if path.suffix in (".yaml", ".yml") or path.exists() or path.parent != Path():
        return path
    packaged = PACKAGED / f"{chosen}.yaml"
    if packaged.is_file():
        return packaged
    names = ", ".join(sorted(path.stem for path in PACKAGED.glob("*.yaml")))
    raise UserError(
        f"--config is {chosen}, but no packaged config has that name ({names}); "
        "give one of them, or a file such as ./mine.yaml"
    )
