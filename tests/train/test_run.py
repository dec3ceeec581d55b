"""What a run that has failed leaves in `exit.json`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from sdevid.checkpoint import Progress
from sdevid.errors import UserError
from sdevid.exit_code import ExitCode
from sdevid.train import run
from sdevid.train.checkpointing.saver import SaveError
from sdevid.train.health import disk
from sdevid.train.world import World


@pytest.mark.parametrize(("kind", "retry"), [(UserError, False), (SaveError, True)])
@pytest.mark.parametrize("rank", [0, 1])
def test_users_fault_is_written_down_by_the_rank_that_met_it(kind, retry, rank, make_config, world):
    config = make_config()
    config.run_dir.mkdir()
    mine = World(rank, 2, world.device, world.control)
    with pytest.raises(kind):
        run.exit_code_of(kind("no room"), config, mine, Progress(clips=8, step=2))
    end = json.loads((config.run_dir / "exit.json").read_text())
    assert (end["reason"], end["step"], end["retry"]) == ("failed", 2, retry)
    assert end["message"] == ("no room" if rank == 0 else "rank 1: no room")


def test_exit_file_is_the_main_ranks_else_the_first_ones(make_config, world):
    config = make_config()
    config.run_dir.mkdir()
    for rank, text in ((1, "no folder"), (2, "left alone"), (0, "no room")):
        mine = World(rank, 3, world.device, world.control)
        with pytest.raises(UserError):
            run.exit_code_of(UserError(text), config, mine, Progress())
        message = json.loads((config.run_dir / "exit.json").read_text())["message"]
        assert message == ("no room" if rank == 0 else "rank 1: no folder")


def test_disk_that_is_full_is_told_without_a_traceback(make_config, world, capsys):
    config = make_config()
    config.run_dir.mkdir()
    full = OSError(errno.ENOSPC, "No space left on device")
    assert run.exit_code_of(full, config, world, Progress()) == ExitCode.USER
    message = capsys.readouterr().err
    assert "No space left on device (" in message
    assert f"make room, in run_dir {config.run_dir}" in message
    assert json.loads((config.run_dir / "exit.json").read_text())["retry"]


def test_refused_file_is_told_by_name_without_a_traceback(make_config, world):
    config = make_config()
    config.run_dir.mkdir()
    refused = PermissionError(errno.EACCES, "Permission denied", "/data/secret")
    with pytest.raises(UserError, match=r"'/data/secret' cannot be read or written"):
        run.exit_code_of(refused, config, world, Progress())
    end = json.loads((config.run_dir / "exit.json").read_text())
    assert (end["reason"], end["retry"]) == ("failed", False)
    assert "Traceback" not in end["message"]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="a file system of its own needs root")
def test_disk_out_of_inodes_is_told_apart_from_one_out_of_bytes(make_config, world, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=8,size=16m", "tmpfs", str(small)]
    subprocess.run(mount, check=True)
    try:
        run_dir = small / "run"
        run_dir.mkdir()
        config = make_config().model_copy(update={"run_dir": run_dir})
        assert "no inode" not in disk.free(run_dir)
        (run_dir / "exit.json").touch()
        (run_dir / ".exit.json.tmp").touch()  # what will be written has its inodes
        names = (small / str(i) for i in range(8))
        with pytest.raises(OSError, match="No space left") as full:
            list(map(Path.touch, names))
        assert run.exit_code_of(full.value, config, world, Progress()) == ExitCode.USER
        assert "16 MiB are free there, but no inode: remove files" in disk.free(run_dir)
    finally:
        subprocess.run(["umount", str(small)], check=True)
