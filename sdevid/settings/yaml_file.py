"""YAML of a config that may come from a stranger: no code, no bombs, and a sentence for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sdevid.errors import UserError

_MOST_BYTES = 2**20
_MOST_VALUES = 100_000  # once aliases are expanded


def read_settings(path: Path) -> dict[str, Any]:
    """Read the `key: value` lines of a config file. Raises UserError that says what is wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UserError(
                f"config {path} has more than {_MOST_BYTES:,} bytes, so it is no config"
            )
        text = data.decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _values(node, {}) > _MOST_VALUES:
            raise UserError(
                f"config {path} holds more than {_MOST_VALUES:,} values once its aliases are "
                "expanded; write it without aliases"
            )
        settings = yaml.safe_load(text)
        if node is not None and (twice := _named_twice(node)):
            raise UserError(f"config {path} names {twice}; leave one")
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"config {path} is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise UserError(f"config {path} is nested too deeply to be a config") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"config {path} is not valid YAML: {reason}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise UserError(
            f"config {path} must hold `key: value` lines, not a {type(settings).__name__}"
        )
    return settings


def _named_twice(node: yaml.Node) -> str | None:
    """Find a key that stands twice in one mapping, of which YAML would take the last."""
    waiting, seen = [node], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        lines: dict[str, int] = {}
        for part in node.value:
            if isinstance(node, yaml.SequenceNode):
                waiting.append(part)
                continue
            key, value = part
            line = key.start_mark.line + 1
            if key.value in lines and isinstance(key, yaml.ScalarNode):
                return f"{key.value} twice, in the lines {lines[key.value]} and {line}"
            if isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
            waiting.append(value)
    return None


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """Count the values below `node` with every alias expanded, each node visited once."""
    if id(node) not in counted:
        counted[id(node)] = _MOST_VALUES  # an alias of an enclosing node never ends
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        counted[id(node)] = 1 + sum(_values(child, counted) for child in children)
    return counted[id(node)]
