"""Output that nobody takes any more does not end a command; credentials are never shown."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sdevid.console import redacted

PROGRAM = """
import sys
from sdevid import console
console.protect()
for i in range(2000):
    print("a line of output", i)
    print("a line of errors", i, file=sys.stderr)
sys.stdout.flush()
open(sys.argv[1], "w").write("went on")
"""


def run(tmp_path, **streams) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "end")]
    return subprocess.Popen(command, **streams)


@pytest.mark.parametrize("full", ["stdout", "stderr", "both"])
def test_full_stream_is_survived(tmp_path, full):
    with open("/dev/full", "w", encoding="utf-8") as sink:  # noqa: PTH123
        names = ("stdout", "stderr") if full == "both" else (full,)
        with run(
            tmp_path, **{"stdout": subprocess.DEVNULL} | dict.fromkeys(names, sink)
        ) as process:
            assert process.wait(60) == 0
    assert (tmp_path / "end").read_text(encoding="utf-8") == "went on"


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_reader_that_goes_away_is_told_on_the_other_stream(tmp_path, closed):
    reader, writer = os.pipe()
    other = {"stdout": "stderr", "stderr": "stdout"}[closed]
    with run(tmp_path, **{closed: writer, other: subprocess.PIPE}) as process:
        os.close(writer)
        os.close(reader)
        output = getattr(process, other).read().decode()
        assert process.wait(60) == 0
    assert output.count(f"sdevid: {closed} takes no more") == 1
    assert (tmp_path / "end").exists()


def test_streams_that_are_closed_from_the_start_are_survived(tmp_path):
    line = f"exec {sys.executable} -c '{PROGRAM}' {tmp_path / 'end'} >&- 2>&- <&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0
    assert (tmp_path / "end").read_text(encoding="utf-8") == "went on"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data https://user:pw@host/x is", "data https://host/x is"),
        ("s3://KEY:SE/CRET@bucket/x", "s3://bucket/x"),
        ("(ftp+tls://u@h:21/x)", "(ftp+tls://h:21/x)"),
        ("https://h/x?X-Amz-Signature=abc&y=1 ended", "https://h/x ended"),
        ("a@b, C:/x, /a//b@c and 3 < 4?", "a@b, C:/x, /a//b@c and 3 < 4?"),
        ("https://h:80/a@b", "https://h:80/a@b"),
        ("https://u:p@h/a, https://v:q@i/b", "https://h/a, https://i/b"),
    ],
)
def test_credentials_of_urls_are_left_out(text, shown):
    assert redacted(text) == shown
