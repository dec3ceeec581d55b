"""The processes that share a job of sampling: accelerate's, or the one at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from accelerate import PartialState


@contextmanager
def processes() -> Iterator[PartialState]:
    """Join the processes that a launcher started, or the process group of the program, if any.

    A group that begins here ends here; one that the program began stays as it is.
    """
    from accelerate import PartialState

    began_before = dist.is_initialized()
    with _launched(began_before):
        state = PartialState(cpu=not torch.cuda.is_available())  # else two CPU ranks are one each
    try:
        yield state
    finally:
        if dist.is_initialized() and not began_before:
            state.destroy_process_group()
            PartialState._reset_state()  # it would name the group that has ended


@contextmanager
def _launched(in_group: bool) -> Iterator[None]:
    """Hide a LOCAL_RANK that no launcher set: accelerate would wait for the other processes."""
    is_stray = not in_group and "MASTER_ADDR" not in os.environ
    rank = os.environ.pop("LOCAL_RANK", None) if is_stray else None
    try:
        yield
    finally:
        if rank is not None:
            os.environ["LOCAL_RANK"] = rank


@contextmanager
def one_thread_on_cpu() -> Iterator[None]:
    """Run on one thread where there is no GPU, and restore the number of threads.

    Two threads sum in another order, so that the number of cores would reach the videos' bits.
    """
    threads = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
