"""One writer a folder: an ownership file with a heartbeat, taken before anything is written."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sdevid.errors import UserError

NAME = ".owner"
BEAT_SECONDS = 10.0  # between two heartbeats
STALE_SECONDS = 300.0  # without a heartbeat, where nothing better is known of the owner
_SQUEUE_SECONDS = 30
_LIVE_STATES = frozenset(
    ["RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STOPPED", "SIGNALING", "RESIZING"]
)


class OwnedError(UserError):
    """A folder that another process writes; retrying with nothing changed does not help."""


@dataclass(frozen=True)
class Owner:
    """A process that writes a folder, as its ownership file names it."""

    token: str  # random: two owners are never equal
    host: str
    machine: str  # boot and namespace of process ids: where `pid` has a meaning
    pid: int
    started: int  # clock ticks between boot and the start of the process
    since: str  # local time at which it became the owner
    job: str | None = None  # Slurm's job, and which start of it
    restart: int = 0
    task: str | None = None

    def __str__(self) -> str:
        job = f" (job {self.job}, task {self.task or 0})" if self.job else ""
        return f"process {self.pid} on {self.host}{job} since {self.since}"


@contextmanager
def own(folder: Path, what: str, say: Callable[[str], None]) -> Iterator[Owner]:
    """Own `folder` as its one writer while the context is open; it is made where it is missing.

    A folder that was made and into which nothing was written is removed again.
    `what` names the setting or option in messages. A stale owner is replaced, with a message: a
    process of this machine that is gone, a Slurm job that squeue no longer knows or an earlier
    start of this job, a heartbeat older than `STALE_SECONDS`. Ends the process if another takes the
    folder over, since nothing more may be written to it. Raises OwnedError where somebody else owns
    the folder, UserError where it cannot be written.
    """
    mine, is_new = identify(), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        former = _take(folder, mine, what)
    except OSError as error:
        raise UserError(f"{what} is {folder}, but it cannot be written: {error}") from error
    if former:
        say(f"{what} {folder} is taken over: {former}")
    closed = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, mine, closed), name="owner", daemon=True)
    beating.start()
    try:
        yield mine
    finally:
        closed.set()
        beating.join()
        if read(folder) == mine:
            with suppress(OSError):
                (folder / NAME).unlink()
                if is_new:
                    folder.rmdir()  # refused where it holds anything


def refuse_if_owned(folder: Path, what: str) -> None:
    """Raise OwnedError where a living process owns `folder`; leaves no file behind."""
    holder, mine = read(folder), identify()
    if (folder / NAME).exists() and stale(folder, holder, mine) is None:
        raise _owned(folder, what, holder)


def identify() -> Owner:
    """Describe this process as an owner."""
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return Owner(
        token=secrets.token_hex(8),
        host=os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
        machine=_machine(),
        pid=os.getpid(),
        started=process_start(os.getpid()) or 0,
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        job=os.environ.get("SLURM_JOB_ID"),
        restart=int(restart) if restart.isdigit() else 0,
        task=os.environ.get("SLURM_ARRAY_TASK_ID"),
    )


def read(folder: Path) -> Owner | None:
    """Read the owner that the folder names; None where there is none or its file is unreadable."""
    try:
        if not (folder / NAME).is_file():  # a pipe would hold the reader
            return None
        fields = json.loads((folder / NAME).read_text(encoding="utf-8"))
        owner = Owner(**fields)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {int: ("pid", "started", "restart"), str: ("token", "host", "machine", "since")}
    sound = all(isinstance(getattr(owner, n), k) for k, names in kinds.items() for n in names)
    return owner if sound else None


def stale(folder: Path, holder: Owner | None, mine: Owner) -> str | None:
    """Say why `holder` no longer writes `folder`, or None if it may still do so."""
    if holder is not None:
        if holder.machine == mine.machine:
            if process_start(holder.pid) == holder.started:
                return None
            return f"{holder} is gone"
        if holder.job and mine.job == holder.job and mine.restart > holder.restart:
            return f"{holder} was an earlier start of this job"
        if holder.job and (known := _job_runs(holder.job)) is not None:
            return None if known else f"{holder} has ended: squeue does not know its job"
    age = _age(folder)
    if age is not None and age < -BEAT_SECONDS:  # the clock was set back; who lives beats anew
        time.sleep(2 * BEAT_SECONDS)
        later = _age(folder)
        if later is not None and later < -BEAT_SECONDS:
            return f"{holder or 'an owner without a readable name'} has a heartbeat of the future"
        age = later
    if age is not None and age <= STALE_SECONDS:
        return None
    silent = "has gone" if age is None else f"has no heartbeat for {age:.0f} s"
    return f"{holder or 'an owner without a readable name'} {silent}"


def _take(folder: Path, mine: Owner, what: str) -> str | None:
    """Write the ownership file; return what was taken over. Raises OwnedError."""
    former: str | None = None
    while not _create(folder, mine):
        holder = read(folder)
        why = stale(folder, holder, mine)
        if why is None:
            raise _owned(folder, what, holder)
        _set_aside(folder, holder)
        former = why
    if former:
        time.sleep(0.2)  # another that saw the same stale owner may be between its two steps
        if (holder := read(folder)) != mine:
            raise _owned(folder, what, holder)
    return former


def _owned(folder: Path, what: str, holder: Owner | None) -> OwnedError:
    who = holder or "a process that does not name itself"
    return OwnedError(
        f"{what} {folder} is in use by {who}; wait for it or end it, or give another {what} "
        "(retry: false)"
    )


def _create(folder: Path, mine: Owner) -> bool:
    """Make the ownership file with its content at once, unless there is one."""
    aside = folder / f"{NAME}-{mine.token}"
    aside.write_text(json.dumps(asdict(mine)) + "\n", encoding="utf-8")
    try:
        os.link(aside, folder / NAME)  # atomic over NFS too
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        with suppress(FileExistsError), (folder / NAME).open("x", encoding="utf-8") as file:
            file.write(json.dumps(asdict(mine)) + "\n")
        return read(folder) == mine
    finally:
        aside.unlink(missing_ok=True)
    return True


def _set_aside(folder: Path, expected: Owner | None) -> None:
    """Remove the file of a stale owner; put it back if it is no longer the one that was judged."""
    aside = folder / f"{NAME}-stale-{secrets.token_hex(8)}"
    try:
        (folder / NAME).rename(aside)
    except FileNotFoundError:
        return
    owner = _read_file(aside)
    if expected is not None and owner != asdict(expected):
        with suppress(OSError):
            os.link(aside, folder / NAME)
    aside.unlink(missing_ok=True)


def _read_file(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _beat(folder: Path, mine: Owner, closed: threading.Event) -> None:
    """Renew the heartbeat; end the process once another owner has taken the folder over.

    A file that somebody removed, as by cleaning the folder up, is made again.
    """
    while not closed.wait(BEAT_SECONDS):
        with suppress(OSError):  # a full or absent disk is told by whoever writes data to it
            if not os.path.lexists(folder / NAME):
                _create(folder, mine)
            os.utime(folder / NAME)
        holder = read(folder)
        if holder is not None and holder != mine and not closed.is_set():
            text = f"sdevid: {folder} was taken over by {holder}; this process ends\n"
            with suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
            os._exit(2)


def _age(folder: Path) -> float | None:
    """Measure seconds since the last heartbeat by the file system's clock; None without a file."""
    probe = folder / f"{NAME}-clock-{secrets.token_hex(8)}"
    try:
        beat = (folder / NAME).stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - beat
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _machine() -> str:
    """Name what a process number belongs to: this kernel's boot and the PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{os.uname().nodename} {secrets.token_hex(8)}"


def process_start(pid: int) -> int | None:
    """Read when a process of this machine started, in ticks since boot; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _job_runs(job: str) -> bool | None:
    """Ask Slurm whether it runs this job now; None where it cannot be asked."""
    if shutil.which("squeue") is None or not job.isdigit():
        return None
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format=%T"],
            capture_output=True,
            text=True,
            timeout=_SQUEUE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return False if "Invalid job id" in done.stderr else None
    return any(state.strip() in _LIVE_STATES for state in done.stdout.splitlines())
