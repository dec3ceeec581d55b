"""Files that a reader sees whole or not at all, and safetensors on a disk that takes no more."""

from __future__ import annotations

import errno
import os
import resource
import signal

import pytest
import torch

from sdevid import tensor_file
from sdevid.atomic_file import written_aside


def test_written_aside_replaces_the_file_at_the_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")
    with written_aside(path) as aside:
        aside.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        assert aside.suffix == ".json"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_leave_the_last_ones_file_whole(tmp_path):
    path = tmp_path / "a.json"
    with written_aside(path) as first:
        first.write_text("1" * 9, encoding="utf-8")
        with written_aside(path) as second:
            second.write_text("2", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "1" * 9
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_the_former_file_and_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")

    def write() -> None:
        with written_aside(path) as aside:
            aside.symlink_to("/dev/full")
            aside.write_text("new", encoding="utf-8")

    with pytest.raises(OSError, match="No space left") as fault:
        write()
    assert (fault.value.errno, fault.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_that_do_not_fit_are_an_error_of_the_system(tmp_path):
    """The largest file that this process may write stands for a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, former[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as fault:
            tensor_file.save({"a": torch.ones(100_000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert fault.value.filename == str(tmp_path / "a.safetensors")
