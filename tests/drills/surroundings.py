"""Drills of what surrounds a run: starts, signals, data, disks, terminals, strangers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from drills import Row, Yard
from strangers import hostile_payloads, web_server
from trials import PATIENCE, ROOT, SIZE, STEPS, Run, equal

from sdevid import checkpoint
from sdevid.data.shard_file import digest

SLOWLY = {"slow": {"rank": 0, "seconds": 0.2}}
KILLED = {"die": {"serial": 8 * SIZE - 1}}  # in step 8


def two_writers(yard: Yard) -> Iterator[Row]:
    """The same command twice at once, and two tasks of a job array: the second touches nothing."""
    run = yard.run("twice", ranks=1)
    tasks = [{"SLURM_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task)} for task in (0, 1)]
    slowly = {"slow": {"rank": 0, "seconds": 3.0}}  # the other starts take some seconds
    first = run.start(slowly, **tasks[0])
    run.wait_until(run.folder / "metrics.jsonl", first)
    for environment in ({}, tasks[1]):
        second = run.ended(run.start(**environment))
        assert second.code == 2, second.said
        assert "is in use by process" in second.line("run_dir")
        assert "(job 77, task 0)" in second.line("run_dir")
        refused = json.loads((run.folder / "exit-refused.json").read_text(encoding="utf-8"))
        assert refused["retry"] is False
    assert run.ended(first).code == 0
    comparison = equal(run, yard.whole.get(1))
    yield Row("A second start in the same folder", f"refused by name, exit code 2; {comparison}", 0)
    happened = f"the second task refused, naming job 77, task 0; {comparison}"
    yield Row("A job array of two tasks on one run folder", happened, 0)


def hang_up(yard: Yard) -> Iterator[Row]:
    """SIGHUP, as of a terminal that is closed."""
    run = yard.run("hangup", ranks=1)
    process = run.start(SLOWLY)
    run.wait_until(run.folder / "metrics.jsonl", process)
    process.send_signal(signal.SIGHUP)
    ended = run.ended(process)
    assert (ended.code, run.ending()["reason"]) == (3, "preempted"), ended.output
    following = run.finish()
    comparison = equal(run, yard.whole.get(1))
    lost = ended.reached - following.began
    yield Row("SIGHUP", f"saved at step {ended.reached}, exit code 3; {comparison}", lost)


def signals_in_save(yard: Yard) -> Iterator[Row]:
    """SIGHUP and SIGTERM while a checkpoint is saved behind training, two Ctrl-C in training."""
    endings = {
        "behind training": {
            ("SIGHUP",): ("weights", "preempted"),
            ("SIGTERM",): ("manifest", "preempted"),
        },
        "in training": {("SIGINT", "SIGINT"): ("hashing", "stopped")},
    }
    for where, each in endings.items():
        settings = {"checkpoint": {"asynchronous": where == "behind training"}}
        run = yard.run(f"signals-{len(each)}", ranks=1, settings=settings)
        lost, saved = 0, []
        for signals, (phase, reason) in each.items():
            newest = next(iter(checkpoint.steps(run.folder)), 0)
            step = max(newest - newest % 2 + 2, 4)  # every second one is saved, one before it
            fault = {"phase": phase, "step": step, "rank": 0, "signals": signals}
            ended = run.attempt({"kill_in_save": fault})
            assert (ended.code, run.ending()["reason"]) == (3, reason), ended.output
            newest = next(iter(checkpoint.steps(run.folder)), 0)
            folder = checkpoint.folder_of(run.folder, newest)
            assert not checkpoint.faults(folder, checkpoint.read_manifest(folder))
            lost += ended.reached - newest
            saved.append(newest)
        run.finish()
        comparison = equal(run, yard.whole.get(1))
        names = ", ".join(" and ".join(signals) for signals in each)
        happened = f"exit code 3 each time, whole checkpoints of steps {saved}; {comparison}"
        yield Row(f"{names} in a save {where}", happened, lost)


def suspended(yard: Yard) -> Iterator[Row]:
    """SIGSTOP and SIGCONT, as `scontrol suspend` sends them, for longer than the watchdog waits."""
    seconds = 2.0
    run = yard.run("suspended", ranks=1, settings={"watchdog": {"seconds": seconds}})
    process = run.start(SLOWLY)
    run.wait_until(run.folder / "metrics.jsonl", process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(3 * seconds)
    process.send_signal(signal.SIGCONT)
    ended = run.ended(process)
    assert ended.code == 0, ended.output
    comparison = equal(run, yard.whole.get(1))
    happened = (
        f"stopped for {3 * seconds:g} s at a watchdog of {seconds:g} s and went on; {comparison}"
    )
    yield Row("SIGSTOP and SIGCONT", happened, 0)


def manifest_bit(yard: Yard) -> Iterator[Row]:
    """One digit of the newest manifest is another."""
    run = yard.run("bit", ranks=1)
    ended = run.attempt(KILLED)
    assert ended.code != 0
    newest, before = checkpoint.steps(run.folder)[:2]
    path = checkpoint.folder_of(run.folder, newest) / "manifest.json"
    text = path.read_text(encoding="utf-8")
    clips = f'"clips": {newest * SIZE}'
    assert clips in text
    path.write_text(text.replace(clips, f'"clips": {newest * SIZE + 1}', 1), encoding="utf-8")
    following = run.finish()
    assert following.began == before
    assert "does not have the hash" in following.line("is damaged")
    comparison = equal(run, yard.whole.get(1))
    happened = f"named as damage, carried on from step {before}; {comparison}"
    yield Row("A changed digit in a manifest", happened, ended.reached - following.began)


def data_exchanged(yard: Yard) -> Iterator[Row]:
    """The shards are others when the run is carried on."""
    run = yard.run("exchanged", ranks=1)
    ended = run.attempt(KILLED)
    other = yard.folder / "other"
    shutil.copytree(yard.data, other)
    index = max(other.glob("train-*.index.json"))
    content = json.loads(index.read_text(encoding="utf-8"))
    content["clips"].pop()
    index.write_text(json.dumps(content), encoding="utf-8")
    dataset = json.loads((other / "dataset.json").read_text(encoding="utf-8"))
    del dataset["splits"]["train"]["indices"]  # the binary ones: those in JSON are read
    (other / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    refused = Run(run.folder, other, 1).attempt()
    assert refused.code == 2, refused.output
    assert "data_changed=true" in refused.line("the data are not those of step")
    following = run.finish()
    comparison = equal(run, yard.whole.get(1))
    happened = f"refused with both fingerprints; with the former data {comparison}"
    yield Row("Data exchanged between two starts", happened, ended.reached - following.began)


def no_checkpoints(yard: Yard) -> Iterator[Row]:
    """A file where the checkpoints' folder should be: nothing can be saved."""
    run = yard.run("unwritable", ranks=1)
    run.folder.mkdir()
    blocked = run.folder / "checkpoints"
    blocked.touch()
    ended = run.attempt()
    assert ended.code == 2, ended.output
    assert ended.reached < STEPS
    assert run.ending()["retry"] is True
    blocked.unlink()
    following = run.finish()
    comparison = equal(run, yard.whole.get(1))
    happened = f"ended at the first save, step {ended.reached}; with a folder again {comparison}"
    yield Row("Checkpoints that cannot be written", happened, ended.reached - following.began)


def full_log(yard: Yard) -> Iterator[Row]:
    """stdout and stderr go to a disk that is full."""
    run = yard.run("full", ranks=1)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        assert run.start(output=full).wait(PATIENCE) == 0
    assert run.ending()["reason"] == "done"
    comparison = equal(run, yard.whole.get(1))
    yield Row("A log on a full disk (/dev/full)", f"went on to its end; {comparison}", 0)


def no_wandb(yard: Yard) -> Iterator[Row]:
    """A key for wandb, and no network."""
    run = yard.run("offline", ranks=1, settings={"metrics": {"wandb": True}})
    server = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    ended = run.ended(run.start(**server))
    assert ended.code == 0, ended.said
    assert "does not answer" in ended.line("wandb: ")
    comparison = equal(run, yard.whole.get(1))
    yield Row("wandb without network", f"one line, then logged offline; {comparison}", 0)


def cache_wiped(yard: Yard) -> Iterator[Row]:
    """A cleaner of the node's disk removes the cache of shards that are read from the web."""
    cache = yard.folder / "cache"
    with web_server(yard.data) as address:
        run = Run(yard.folder / "wiped", address, 1, {"data_cache": str(cache)})
        process = run.start(SLOWLY)
        run.wait_until(run.folder / "metrics.jsonl", process)
        assert any(cache.iterdir())
        shutil.rmtree(cache.rename(yard.folder / "wiped-cache"))  # the run goes on writing there
        ended = run.ended(process)
    assert ended.code == 0, ended.said
    assert not (run.folder / "quarantine.jsonl").exists()
    comparison = equal(run, yard.whole.get(1))
    yield Row("The cache of remote shards wiped", f"no clip was called damaged; {comparison}", 0)


def hostile_shards(yard: Yard) -> Iterator[Row]:
    """A stranger's clips: a pickle that runs a command, an npy of 1 TiB, an SDP named mp4."""
    data, mark = yard.folder / "hostile", yard.folder / "EXECUTED"
    shutil.copytree(yard.data, data)
    index = min(data.glob("train-*.index.json"))
    content = json.loads(index.read_text(encoding="utf-8"))
    for clip, (name, payload) in zip(content["clips"], hostile_payloads(mark), strict=False):
        member = clip["members"].pop("npy")
        payload = payload.ljust(member["size"], b"\n")
        digests = {kind: digest(payload, kind) for kind in ("sha256", "xxh3")}
        clip["members"][name] = member | digests
        with (data / index.name.replace(".index.json", ".tar")).open("r+b") as tar:
            tar.seek(member["offset"])
            tar.write(payload)
    index.write_text(json.dumps(content), encoding="utf-8")
    settings = {"data_max_damaged": 0.5}
    whole = yard.whole.get(1, data, **settings)
    run = Run(yard.folder / "hostile-run", data, 1, settings)
    ended = run.attempt(KILLED)
    following = run.finish()
    comparison = equal(run, whole)
    damaged = (run.folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(damaged) == 3
    assert not mark.exists()
    happened = f"3 clips quarantined, no command run; killed and carried on; {comparison}"
    yield Row("Shards of a stranger, and SIGKILL", happened, ended.reached - following.began)


def requeue_storm(yard: Yard) -> Iterator[Row]:
    """USR2 before the trainer can heed it, at every start, by the rules of slurm/requeue.sh."""
    run, most = yard.run("storm", ranks=1), 2
    script = (
        "source slurm/requeue.sh; begin_attempt; "
        '"$@" & sleep 0.3; kill -USR2 $!; wait $! || true; '
        'judge signalled; remember "$verdict"; echo "$verdict: $why"'
    )
    arguments = {"run_dir": str(run.folder), "SLURM_JOB_ID": "77", "SDEVID_MAX_FAILURES": str(most)}
    decided = [
        subprocess.run(
            ["bash", "-euc", script, "-", *run.command()],
            cwd=ROOT,
            env=os.environ | arguments,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for _ in range(most + 1)
    ]
    assert [line.partition(":")[0] for line in decided] == ["again"] * most + ["over"]
    run.finish()
    comparison = equal(run, yard.whole.get(1))
    happened = (
        f"went back {most} times, then stayed ended (SDEVID_MAX_FAILURES={most}); {comparison}"
    )
    yield Row("A requeue storm: USR2 before any step, at each start", happened, 0)


def no_reader(yard: Yard) -> Iterator[Row]:
    """Whoever read stdout and stderr has gone."""
    run = yard.run("unread", ranks=1)
    process = run.start(SLOWLY)
    run.wait_until(run.folder / "metrics.jsonl", process)
    assert process.stdout
    process.stdout.close()
    assert process.wait(240) == 0
    comparison = equal(run, yard.whole.get(1))
    yield Row("stdout and stderr closed by their reader", f"went on to its end; {comparison}", 0)


def torn_metrics(yard: Yard) -> Iterator[Row]:
    """A kill left a torn line and bytes that are no text in metrics.jsonl."""
    run = yard.run("metrics", ranks=1)
    ended = run.attempt(KILLED)
    with Path(run.folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"clips": 9\xff\xfe' + bytes(512))
    following = run.finish()
    comparison = equal(run, yard.whole.get(1))
    lost = ended.reached - following.began
    yield Row("Junk at the end of metrics.jsonl", f"dropped; {comparison}", lost)


SURROUNDINGS = (
    two_writers,
    hang_up,
    signals_in_save,
    suspended,
    manifest_bit,
    data_exchanged,
    no_checkpoints,
    full_log,
    no_wandb,
    cache_wiped,
    hostile_shards,
    requeue_storm,
    no_reader,
    torn_metrics,
)
