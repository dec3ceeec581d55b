"""Exit codes of every command; launch/ and slurm/ act on them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    FINISHED = 0
    FAILED = 1  # anything else: a fault of the program, a stall, a lost process
    USER = 2  # a mistake in settings, data or files, told in one message
    RESUMABLE = 3  # stopped or preempted; the same command carries on
    LOST = 4  # training has diverged and recovery is exhausted
