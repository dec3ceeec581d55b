"""A folder has one writer; who is gone is taken over, who may live is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sdevid import owner
from sdevid.errors import UserError
from sdevid.owner import OwnedError, Owner

FAR = "another boot of another kernel"


def hold(folder: Path, holder: Owner, age: float = 0.0) -> None:
    """Leave `holder`'s file in `folder`, with a heartbeat `age` seconds old."""
    folder.mkdir(exist_ok=True)
    (folder / owner.NAME).write_text(json.dumps(asdict(holder)), encoding="utf-8")
    beat = (folder / owner.NAME).stat().st_mtime - age
    os.utime(folder / owner.NAME, (beat, beat))


def other(**fields: object) -> Owner:
    """A living process of this machine that is not this one."""
    parent = os.getppid()
    started = owner.process_start(parent)
    assert started
    return replace(owner.identify(), **{"token": "t", "pid": parent, "started": started} | fields)


def take(folder: Path) -> list[str]:
    """What is said while the folder is taken and given back."""
    output: list[str] = []
    with owner.own(folder, "run_dir", output.append) as mine:
        assert owner.read(folder) == mine
    assert not (folder / owner.NAME).exists()
    return output


def test_free_folder_is_taken_and_given_back_without_a_word(tmp_path):
    assert take(tmp_path / "new" / "run") == []
    assert take(tmp_path / "new" / "run") == []
    assert not (tmp_path / "new" / "run").exists()
    (tmp_path / "old").mkdir()
    assert take(tmp_path / "old") == []
    assert list((tmp_path / "old").iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "age"),
    [
        (other(), 0.0),
        (other(), 1e6),  # stopped or on a hanging disk, but alive
        (other(machine=FAR, host="n7"), owner.STALE_SECONDS - 30),
        (other(machine=FAR, host="n7", job="7"), 5.0),
    ],
)
def test_living_owner_is_named_and_left_alone(tmp_path, holder, age, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    hold(tmp_path, holder, age)
    with (
        pytest.raises(OwnedError, match="is in use by process") as raised,
        owner.own(tmp_path, "run_dir", print),
    ):
        pytest.fail("it was taken")
    for part in (
        str(holder.pid),
        holder.host,
        holder.since,
        "retry: false",
        *filter(None, [holder.job]),
    ):
        assert part in str(raised.value)
    assert owner.read(tmp_path) == holder
    with pytest.raises(OwnedError):
        owner.refuse_if_owned(tmp_path, "run_dir")


@pytest.mark.parametrize(
    ("holder", "age", "why"),
    [
        (other(started=1), 0.0, "is gone"),  # its number belongs to another process now
        (other(machine=FAR, host="n7"), owner.STALE_SECONDS + 30, "no heartbeat for"),
    ],
)
def test_stale_owner_is_taken_over_and_said_so(tmp_path, holder, age, why):
    hold(tmp_path, holder, age)
    (output,) = take(tmp_path)
    assert "is taken over" in output
    assert why in output
    assert str(holder.pid) in output


def test_dead_process_is_stale_at_once(tmp_path):
    program = "import sys, os\nfrom pathlib import Path\nfrom sdevid import owner\n"
    program += "with owner.own(Path(sys.argv[1]), 'run_dir', print): os._exit(9)\n"
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    assert owner.read(tmp_path)
    (output,) = take(tmp_path)
    assert "is gone" in output


@pytest.mark.parametrize(
    ("squeue", "taken"),
    [
        ("echo RUNNING", False),
        ("echo SUSPENDED", False),
        ("echo PENDING", True),  # requeued, and not started
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),  # then the heartbeat
    ],
)
def test_squeue_decides_over_the_job_of_another_machine(tmp_path, squeue, taken, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/squeue").write_text(f"#!/bin/sh\n{squeue}\n", encoding="utf-8")
    (tmp_path / "bin/squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    run = tmp_path / "run"
    hold(run, other(machine=FAR, host="n7", job="71"))
    if taken:
        assert "squeue does not know its job" in take(run)[0]
    else:
        with pytest.raises(OwnedError, match="job 71"):
            take(run)


def test_earlier_start_of_the_same_job_is_stale(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    hold(tmp_path, other(machine=FAR, host="n7", job="71", restart=1))
    assert "earlier start of this job" in take(tmp_path)[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": 3}', '{"a":' * 50])
def test_unreadable_owner_counts_by_its_heartbeat(tmp_path, text):
    path = tmp_path / owner.NAME
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OwnedError, match="does not name itself"):
        take(tmp_path)
    old = path.stat().st_mtime - owner.STALE_SECONDS - 30
    os.utime(path, (old, old))
    assert "without a readable name" in take(tmp_path)[0]


def test_only_one_of_many_that_start_at_once_gets_the_folder(tmp_path):
    hold(tmp_path, other(started=1))  # stale: all of them see it
    program = "import sys, time\nfrom pathlib import Path\nfrom sdevid import owner, errors\n"
    program += "sys.stdin.readline()\ntry:\n"
    program += " with owner.own(Path(sys.argv[1]), 'run_dir', lambda _: None):\n"
    program += "  print('mine', flush=True); sys.stdin.readline()\n"
    program += "except errors.UserError: print('refused', flush=True)\n"
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipe = subprocess.PIPE
    many = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(6)]
    for process in many:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in many]
    for process in many:
        process.communicate("\n")
    assert sorted(answers) == ["mine"] + ["refused"] * 5


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run_dir is .*file/run, but it cannot be written"):
        take(tmp_path / "file" / "run")


def test_owner_ends_once_it_was_taken_over(tmp_path):
    program = "import sys, time\nfrom pathlib import Path\nfrom sdevid import owner\n"
    program += "owner.BEAT_SECONDS = 0.05\n"
    program += "with owner.own(Path(sys.argv[1]), 'run_dir', print):\n print('x', flush=True)\n"
    program += " time.sleep(60)\n"
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.readline()
        taker = other(machine=FAR, host="n9")
        aside = tmp_path / "aside"
        aside.write_text(json.dumps(asdict(taker)), encoding="utf-8")
        aside.replace(tmp_path / owner.NAME)
        assert process.wait(30) == 2
        assert f"was taken over by process {taker.pid} on n9" in process.stderr.read()
    assert owner.read(tmp_path) == taker


def test_owner_whose_file_was_removed_owns_the_folder_still(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.05)
    with owner.own(tmp_path, "run_dir", print) as mine:
        (tmp_path / owner.NAME).unlink()
        until = time.monotonic() + 30
        while owner.read(tmp_path) != mine and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(OwnedError, match="in use by process"):
            take(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_future_heartbeat_not_renewed_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.1)
    hold(tmp_path, other(machine=FAR, host="n7"), age=-86_400.0)  # the clock was set back a day
    assert "has a heartbeat of the future" in take(tmp_path)[0]


def test_future_heartbeat_renewed_is_of_a_living_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.5)
    hold(tmp_path, other(machine=FAR, host="n7"), age=-86_400.0)
    renewal = threading.Timer(0.4, os.utime, [tmp_path / owner.NAME])
    renewal.start()
    with pytest.raises(OwnedError, match="in use by process"):
        take(tmp_path)
    renewal.join()
