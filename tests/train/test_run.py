"""What a run that has failed leaves in `exit.json`."""

from __future__ import annotations

import errno
import json

import pytest

from sdevid.checkpoint import Progress
from sdevid.errors import UserError
from sdevid.exit_code import ExitCode
from sdevid.train import run
from sdevid.train.checkpointing.saver import SaveError
from sdevid.train.world import World


@pytest.mark.parametrize(("kind", "retry"), [(UserError, False), (SaveError, True)])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_users_fault_is_written_down_by_the_rank_that_met_it(
    kind, retry, rank, make_config, world
):
    config = make_config()
    config.run_dir.mkdir()
    mine = World(rank, 2, world.device, world.control)
    with pytest.raises(kind):
        run._failed(kind("no room"), config, mine, Progress(clips=8, step=2))
    end = json.loads((config.run_dir / "exit.json").read_text())
    assert (end["reason"], end["step"], end["retry"]) == ("failed", 2, retry)
    assert end["message"] == ("no room" if rank == 0 else "rank 1: no room")


def test_the_main_rank_has_the_last_word_and_the_first_of_the_others_stays(make_config, world):
    config = make_config()
    config.run_dir.mkdir()
    for rank, text in ((1, "no folder"), (2, "left alone"), (0, "no room")):
        mine = World(rank, 3, world.device, world.control)
        with pytest.raises(UserError):
            run._failed(UserError(text), config, mine, Progress())
        message = json.loads((config.run_dir / "exit.json").read_text())["message"]
        assert message == ("no room" if rank == 0 else "rank 1: no folder")


def test_a_disk_that_is_full_is_told_without_a_traceback(make_config, world, capsys):
    config = make_config()
    config.run_dir.mkdir()
    full = OSError(errno.ENOSPC, "No space left on device")
    assert run._failed(full, config, world, Progress()) == ExitCode.USER
    said = capsys.readouterr().err
    assert "No space left on device (" in said
    assert f"make room, in run_dir {config.run_dir}" in said
    assert json.loads((config.run_dir / "exit.json").read_text())["retry"]
