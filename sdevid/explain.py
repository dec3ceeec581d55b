"""What a setting that was refused is told to its user."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

_MOST_SHOWN = 800  # characters of a message


def explain(error: ValidationError, settings: type[BaseModel]) -> Iterator[str]:
    """Yield a line for each of `settings` at fault.

    For an unknown name the line suggests the nearest known one.
    """
    known = list(_names(settings))
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else "; `sdevid settings` lists them"
            yield f"{name} is not a setting{hint}"
        elif fault["type"] == "value_error":
            message = _shortened(str(fault["msg"]).removeprefix("Value error, "))
            section, _, last = name.rpartition(".")
            if message.startswith(f"{last} "):  # the rule of one setting names it
                name = section
            yield f"{name}.{message}" if name else message
        else:
            rule = str(fault["msg"])
            yield f"{name} is {reprlib.repr(fault['input'])}, but {rule[0].lower()}{rule[1:]}"


def _shortened(message: str) -> str:
    """Cut the middle out of a message with a value of thousands of characters."""
    if len(message) <= _MOST_SHOWN:
        return message
    return f"{message[: _MOST_SHOWN // 2]} ... {message[-_MOST_SHOWN // 2 :]}"


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")
