"""A helper process that ends this one when not even its watchdog thread runs any more."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# Reads how many seconds are left, one line at a time; ends itself when the pipe closes. Counts its
# own turns, and none while the parent is stopped, so that a suspension costs no time.
_HELPER = """
import os, select, signal, sys, time
parent, dumps = int(sys.argv[1]), sys.argv[2] == "dumps"
left, text = None, b""
while True:
    ready, _, _ = select.select([0], [], [], 1.0)
    if ready:
        data = os.read(0, 65536)
        if not data:
            sys.exit()
        text = (text + data)[-256:]
        lines = text.split(b"\\n")
        if len(lines) > 1 and lines[-2]:
            left = float(lines[-2])
        continue
    try:
        state = open(f"/proc/{parent}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        sys.exit()
    if left is None or state in "Tt":
        continue
    left -= 1.0
    if left < 0:
        if dumps:
            os.kill(parent, signal.SIGUSR1)
            time.sleep(2.0)
        os.kill(parent, signal.SIGKILL)
        sys.exit()
"""

_KEPT = ("PATH", "LD_LIBRARY_PATH")  # of the environment


class Helper:
    """The other end of the pipe to the helper process."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = process

    def allow(self, seconds: float) -> None:
        """Let the process run for `seconds` without another message."""
        pipe = self._process.stdin if self._process else None
        if pipe:
            with suppress(OSError):
                pipe.write(b"%.3f\n" % max(1.0, seconds))
                pipe.flush()


@contextmanager
def helper() -> Iterator[Helper]:
    """Run the helper while the context is open; go without where none can be started."""
    stream = stderr()
    if stream:
        faulthandler.register(signal.SIGUSR1, file=stream, all_threads=True)
    command = [sys.executable, "-S", "-E", "-c", _HELPER, str(os.getpid())]
    command.append("dumps" if stream else "no stderr to dump to")
    null, process = subprocess.DEVNULL, None
    with suppress(OSError):
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=null,
            stderr=null,
            start_new_session=True,  # Ctrl-C is for this process alone
            env={name: os.environ[name] for name in _KEPT if name in os.environ},  # no rank's
        )
    try:
        yield Helper(process)
    finally:
        if stream:
            faulthandler.unregister(signal.SIGUSR1)
        if process and process.stdin:
            with suppress(OSError):
                process.stdin.close()
            process.wait()


def stderr() -> TextIO | None:
    """Find the process's own stderr, if it can be written without the interpreter."""
    try:
        return sys.__stderr__ if sys.__stderr__ and sys.__stderr__.fileno() >= 0 else None
    except (OSError, ValueError):
        return None
