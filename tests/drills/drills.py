"""The drills: a fault made for real in a real run, which is then carried on and compared."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trials import SIZE, STEPS, Attempt, References, Run, close, equal

from sdevid import checkpoint

PHASES = {  # of a save, as faulty.py knows them: the rank that is killed, what is killed when
    "folder": (0, "before its folder is made"),
    "torn": (1, "with half of a rank's optimizer state written"),
    "weights": (0, "before a rank's weights are written"),
    "hashing": (1, "while files are hashed"),
    "manifest": (0, "before the manifest is written"),
    "renaming": (0, "before the folder gets its name"),
    "latest": (0, "before `latest` points to it"),
    "deleting": (0, "while an old checkpoint is being deleted"),
}


@dataclass(frozen=True)
class Row:
    """A line of the table: the fault, what happened, how many steps were run again."""

    fault: str
    happened: str
    lost: int


@dataclass(frozen=True)
class Yard:
    """Where the drills take place: a folder, shards, and the runs to compare with."""

    folder: Path
    data: Path
    whole: References

    def run(self, name: str, **kwargs: object) -> Run:
        return Run(self.folder / name, self.data, **kwargs)  # type: ignore[arg-type]


Drill = Callable[[Yard], Iterator[Row]]


def save_phases(yard: Yard) -> Iterator[Row]:
    """SIGKILL at every phase of a save: each start is killed in its second save."""
    settings = {"save_every": SIZE, "checkpoint": {"keep": 2}}
    run = yard.run("phases", settings=settings)
    starts: list[Attempt] = []
    for phase, (rank, _) in PHASES.items():
        step = next(iter(checkpoint.steps(run.folder)), 0) + 2
        kill = {"phase": phase, "step": step, "rank": rank}
        starts.append(run.attempt({"kill_in_save": kill}))
        assert starts[-1].code != 0, f"{phase} {starts[-1].output}"
    starts.append(run.finish())
    comparison = equal(run, yard.whole.get(**settings))
    for (_, when), (ended, following) in zip(
        PHASES.values(), itertools.pairwise(starts), strict=True
    ):
        lost = ended.reached - following.began
        assert 0 <= lost <= 2, (when, lost)
        yield Row(
            f"SIGKILL in a save, {when}",
            f"carried on from step {following.began}; {comparison}",
            lost,
        )


def rank_killed(yard: Yard) -> Iterator[Row]:
    """SIGKILL of one of four ranks in the middle of a step, ZeRO 3."""
    settings = {"zero_stage": 3}
    run = yard.run("killed", ranks=4, settings=settings)
    ended = run.attempt({"die": {"serial": 8 * SIZE - 1}})  # rank 3's, in step 8
    assert ended.code != 0
    following = run.finish()
    comparison = equal(run, yard.whole.get(4, **settings))
    yield Row(
        "SIGKILL of one of 4 ranks in a step (ZeRO 3)",
        f"torchrun ended the others; carried on from step {following.began}; {comparison}",
        ended.reached - following.began,
    )


def signalled(yard: Yard) -> Iterator[Row]:
    """USR2, as Slurm sends it before the time limit."""
    run = yard.run("signalled")
    process = run.start({"slow": {"rank": 0, "seconds": 0.2}})
    run.wait_until(run.folder / "metrics.jsonl", process)
    process.send_signal(signal.SIGUSR2)
    ended = run.ended(process)
    assert run.ending()["reason"] == "preempted", ended.output
    saved = checkpoint.steps(run.folder)[0]
    assert saved == ended.reached < STEPS
    following = run.finish()
    comparison = equal(run, yard.whole.get())
    lost = ended.reached - following.began
    yield Row("USR2", f"saved at step {saved}, exit.json: preempted; {comparison}", lost)


def torn_shard(yard: Yard) -> Iterator[Row]:
    """A shard that ends in the middle, and a kill while it is being read."""
    torn = yard.folder / "torn"
    shutil.copytree(yard.data, torn)
    tar = sorted(torn.rglob("*train*.tar"))[0]
    with tar.open("r+b") as file:
        file.truncate(tar.stat().st_size * 9 // 10)
    settings = {"data_max_damaged": 0.5}
    whole = yard.whole.get(2, torn, **settings)
    run = Run(yard.folder / "torn-run", torn, 2, settings)
    ended = run.attempt({"die": {"serial": 8 * SIZE - 1}})
    following = run.finish()
    comparison = equal(run, whole)
    named = (run.folder / "quarantine.jsonl").read_text().splitlines()
    assert named == (whole.folder / "quarantine.jsonl").read_text().splitlines()
    assert named
    happened = f"{len(named)} clips quarantined and replaced, alike on both ranks; {comparison}"
    lost = ended.reached - following.began
    yield Row("A torn shard, and SIGKILL of a rank", happened, lost)


def full_disk(yard: Yard) -> Iterator[Row]:
    """A disk that is full when a checkpoint is written, and has room again later."""
    disk = yard.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs"]
    subprocess.run([*mount, "-o", "size=600k", "tmpfs", str(disk)], check=True)
    try:
        settings = {"checkpoint": {"on_failure": "stop"}}
        run = Run(disk / "run", yard.data, 2, settings)
        ended = run.attempt()
        assert run.ending()["reason"] in ("failed", "stopped"), ended.output
        text = ended.line("could not be written")
        assert "MiB are free there" in text
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        following = run.finish()
        comparison = equal(run, yard.whole.get(**settings))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    yield Row(
        "A full disk (tmpfs) during a save",
        f"said so and ended; with room again carried on from step {following.began}; {comparison}",
        ended.reached - following.began,
    )


def hung_rank(yard: Yard) -> Iterator[Row]:
    """A rank that hangs in a step."""
    patience = {"seconds": 5, "start_seconds": 200, "grace_seconds": 3}
    settings = {"watchdog": patience}
    run = yard.run("hung", settings=settings)
    ended = run.attempt({"hang": {"serial": 8 * SIZE - 1, "how": "sleep"}})
    assert ended.code != 0
    message = str(run.ending()["message"])
    assert message.startswith("stall in step 8: rank 1 is in "), message
    assert len(list((run.folder / "stall").glob("rank-*.txt"))) == 2
    following = run.finish()
    comparison = equal(run, yard.whole.get())
    yield Row(
        "A rank that hangs in a step",
        f"the watchdog named rank 1, wrote both ranks' stacks and ended the run; {comparison}",
        ended.reached - following.began,
    )


def other_worlds(yard: Yard) -> Iterator[Row]:
    """2, then 1, then 3 ranks, each but the last killed in a step."""
    run = yard.run("worlds")
    lost, steps = 0, []
    for ranks, dies in ((2, 4), (1, 8), (3, None)):
        if dies is None:
            ended = run.finish(ranks)
        else:
            ended = run.attempt({"die": {"serial": dies * SIZE - 1}}, ranks)
            assert ended.code != 0
        steps.append(ended)
    for ended, following in itertools.pairwise(steps):
        lost += ended.reached - following.began
    comparison = close(run, yard.whole.get())
    yield Row(
        "2, then 1, then 3 ranks (SIGKILL between)", f"converted by itself; {comparison}", lost
    )


DRILLS: tuple[Drill, ...] = (
    save_phases,
    rank_killed,
    signalled,
    torn_shard,
    full_disk,
    hung_rank,
    other_worlds,
)
