"""The display of a long job: lines where there is no terminal, one line on one, none if quiet."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from sdevid import console
from sdevid.display import Display

PROGRAM = """
from sdevid.display import Display
with Display(4, "clips", title="work") as display:
    for k in range(4):
        display.advance(1, f"loss {k}")
"""


@pytest.fixture
def level():
    yield console.set_level
    console.set_level("info")


def test_without_a_terminal_first_and_last_are_plain_lines(capsys):
    with Display(4, "clips", title="work") as display:
        for k in range(4):
            display.advance(1, f"loss {k}")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("work: 1 of 4 clips, ")
    assert first.endswith("left, loss 0")
    assert last == "work: 4 of 4 clips, loss 3"


def test_job_that_ends_at_its_first_line_is_told_once(capsys):
    with Display(1, "clips") as display:
        display.advance(1)
    assert capsys.readouterr().err == "1 of 1 clips\n"


@pytest.mark.parametrize("chosen", ["warning", "error"])
def test_above_info_nothing_is_shown(chosen, level, capsys):
    level(chosen)
    with Display(4, "clips") as display:
        display.advance(4)
        assert not display.due
    console.say("a note")
    assert capsys.readouterr() == ("", "")


def test_warning_is_said_below_error_alone(level, capsys):
    for chosen in ("debug", "warning", "error"):
        level(chosen)
        console.say(chosen, "warning")
    assert capsys.readouterr().out == "debug\nwarning\n"


@pytest.mark.parametrize("size", [(0, 0), (24, 80)])
def test_on_a_terminal_one_line_is_drawn_again(size):
    """Also on one that does not know its size, as in a container."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], **streams):
        os.close(theirs)
        output = b""
        while not output.endswith(b"loss 3\r\n"):
            output += os.read(ours, 4096)
    os.close(ours)
    assert output.count(b"\n") == 1
    assert b"4 of 4 clips" in output.split(b"\r")[-2]
