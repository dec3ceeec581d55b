"""Standard output and error: what is said at which level, and streams that may be closed."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")

_SCHEME = r"(\b[A-Za-z][A-Za-z0-9+.-]*://)"
# A secret may hold a slash, as AWS's do, but a port is followed by one.
_CREDENTIALS = re.compile(_SCHEME + r"(?:[^/\s'\"@]*|[^/\s'\"@:]+:(?!\d+/)[^\s'\"@]*)@")
_SIGNED = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"?]*)\?[^\s'\"]*")

_least: Level = "info"  # of what this process says


def set_level(level: Level) -> None:
    """Show only messages of `level` or above, in this process (`--quiet`, `--log_level`)."""
    global _least
    _least = level


def shows(level: Level) -> bool:
    """Check whether messages of `level` are shown."""
    return LEVELS.index(level) >= LEVELS.index(_least)


def say(text: str, level: Level = "info") -> None:
    """Print a line without credentials, where its level is shown."""
    if shows(level):
        print(redacted(text), flush=True)


def redacted(text: str) -> str:
    """Remove user, password and query from every URL in `text`."""
    return _SIGNED.sub(r"\1", _CREDENTIALS.sub(r"\1", text))


def protect() -> None:
    """Report a full or closed stdout or stderr once and then ignore it, in this process.

    The output's reader may have gone; what a run has to keep is in files of its own. Call it first
    thing in a command. Streams that are not the process's own stay as they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next opened file must not get this number
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Lenient):
            with suppress(OSError):  # what was a file may be a pipe by now, after a fork
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Lenient(stream, name, number))


class _Lenient:
    """A text stream whose file descriptor becomes /dev/null once it takes no more."""

    def __init__(self, stream: TextIO, name: str, number: int) -> None:
        self._stream, self._name, self._number = stream, name, number

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._number)  # what is still buffered goes there, also at exit
        os.close(null)
        other = sys.stderr if self._name == "stdout" else sys.stdout
        print(f"sdevid: {self._name} takes no more ({error}); going on without it", file=other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
