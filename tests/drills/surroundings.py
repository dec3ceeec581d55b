"""Drills of what surrounds a run: other starts, signals, data, manifests, disks, terminals."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from drills import Row, Yard
from trials import SIZE, STEPS, Run, equal

from sdevid import checkpoint

SLOWLY = {"slow": {"rank": 0, "seconds": 0.2}}
KILLED = {"die": {"serial": 8 * SIZE - 1}}  # in step 8


def two_writers(yard: Yard) -> Iterator[Row]:
    """The same command twice at once: the second is refused and touches nothing."""
    run = yard.run("twice", ranks=1)
    first = run.start({"slow": {"rank": 0, "seconds": 2.0}})  # a second start takes some seconds
    run.wait_until(run.folder / "metrics.jsonl", first)
    second = run.attempt()
    assert second.code == 2, second.said
    assert "is in use by process" in second.line("run_dir")
    refused = json.loads((run.folder / "exit-refused.json").read_text(encoding="utf-8"))
    assert refused["retry"] is False
    assert run.ended(first).code == 0
    said = equal(run, yard.whole.get(1))
    yield Row("A second start in the same folder", f"refused by name, exit code 2; {said}", 0)


def hang_up(yard: Yard) -> Iterator[Row]:
    """SIGHUP, as of a terminal that is closed."""
    run = yard.run("hangup", ranks=1)
    process = run.start(SLOWLY)
    run.wait_until(run.folder / "metrics.jsonl", process)
    process.send_signal(signal.SIGHUP)
    ended = run.ended(process)
    assert (ended.code, run.ending()["reason"]) == (3, "preempted"), ended.said
    following = run.finish()
    said = equal(run, yard.whole.get(1))
    lost = ended.reached - following.began
    yield Row("SIGHUP", f"saved at step {ended.reached}, exit code 3; {said}", lost)


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
    assert ended.code == 0, ended.said
    said = equal(run, yard.whole.get(1))
    happened = f"stopped for {3 * seconds:g} s at a watchdog of {seconds:g} s and went on; {said}"
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
    said = equal(run, yard.whole.get(1))
    happened = f"named as damage, carried on from step {before}; {said}"
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
    refused = Run(run.folder, other, 1).attempt()
    assert refused.code == 2, refused.said
    assert "data_changed=true" in refused.line("the data are not those of step")
    following = run.finish()
    said = equal(run, yard.whole.get(1))
    happened = f"refused with both fingerprints; with the former data {said}"
    yield Row("Data exchanged between two starts", happened, ended.reached - following.began)


def no_checkpoints(yard: Yard) -> Iterator[Row]:
    """A file where the checkpoints' folder should be: nothing can be saved."""
    run = yard.run("unwritable", ranks=1)
    run.folder.mkdir()
    blocked = run.folder / "checkpoints"
    blocked.touch()
    ended = run.attempt()
    assert ended.code == 2, ended.said
    assert ended.reached < STEPS
    assert run.ending()["retry"] is True
    blocked.unlink()
    following = run.finish()
    said = equal(run, yard.whole.get(1))
    happened = f"ended at the first save, step {ended.reached}; with a folder again {said}"
    yield Row("Checkpoints that cannot be written", happened, ended.reached - following.began)


def no_reader(yard: Yard) -> Iterator[Row]:
    """Whoever read stdout and stderr has gone, and so has a line of metrics.jsonl's text."""
    run = yard.run("unread", ranks=1)
    process = run.start(SLOWLY)
    run.wait_until(run.folder / "metrics.jsonl", process)
    assert process.stdout
    process.stdout.close()
    assert process.wait(240) == 0
    said = equal(run, yard.whole.get(1))
    yield Row("stdout and stderr closed by their reader", f"went on to its end; {said}", 0)


def torn_metrics(yard: Yard) -> Iterator[Row]:
    """A kill left a torn line and bytes that are no text in metrics.jsonl."""
    run = yard.run("metrics", ranks=1)
    ended = run.attempt(KILLED)
    with Path(run.folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"clips": 9\xff\xfe' + bytes(512))
    following = run.finish()
    said = equal(run, yard.whole.get(1))
    lost = ended.reached - following.began
    yield Row("Junk at the end of metrics.jsonl", f"dropped; {said}", lost)


SURROUNDINGS = (
    two_writers,
    hang_up,
    suspended,
    manifest_bit,
    data_exchanged,
    no_checkpoints,
    no_reader,
    torn_metrics,
)
