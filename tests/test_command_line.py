"""What a command says of a fault, and the code that it ends with."""

from __future__ import annotations

import errno

import pytest

from sdevid.command_line import INTERRUPTED, guarded
from sdevid.errors import UserError


def failing(error: BaseException):
    def command() -> int:
        raise error

    return command


def test_refused_file_is_one_message_that_names_it(capsys):
    refused = OSError(errno.ENAMETOOLONG, "File name too long", "/tmp/" + "x" * 9_000)
    assert guarded("report", failing(refused)) == 2
    message = capsys.readouterr().err
    assert message.startswith("report: '/tmp/xxx")
    assert message.endswith("cannot be read or written: File name too long; give another path\n")
    assert len(message) < 500


def test_error_of_the_system_without_a_file_is_no_users_fault():
    with pytest.raises(OSError, match="Cannot allocate"):
        guarded("report", failing(OSError(errno.ENOMEM, "Cannot allocate memory")))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("Unable to allocate 8 EiB"), RuntimeError("can't allocate memory")],
)
def test_memory_that_ran_out_is_one_message(error, capsys):
    assert guarded("evaluate", failing(error)) == 2
    assert "memory ran out" in capsys.readouterr().err


def test_interrupt_ends_as_a_shell_calls_it(capsys):
    assert guarded("report", failing(KeyboardInterrupt())) == INTERRUPTED == 130
    assert capsys.readouterr().err == "report: interrupted\n"


@pytest.mark.parametrize(
    ("environment", "every_rank", "message"),
    [
        ({}, True, "sdevid: no\n"),
        ({"RANK": "3"}, True, "sdevid: no\n"),  # left over from a launcher that is gone
        ({"RANK": "3"}, False, "sdevid: no\n"),
        ({"RANK": "3", "WORLD_SIZE": "4"}, True, "rank 3: no\n"),
        ({"RANK": "3", "WORLD_SIZE": "4"}, False, ""),
        ({"RANK": "0", "WORLD_SIZE": "4"}, False, "sdevid: no\n"),
    ],
)
def test_ranks_say_a_fault_once_or_by_number(environment, every_rank, message, monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert guarded("sdevid", failing(UserError("no")), every_rank=every_rank) == 2
    assert capsys.readouterr().err == message
