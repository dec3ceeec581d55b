"""Saving behind training: the same files, bounded waits, failures told on every rank."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sdevid import checkpoint, objectives
from sdevid.checkpoint import Progress
from sdevid.config import dump
from sdevid.data import stream
from sdevid.errors import UserError
from sdevid.train.checkpointing import probe, restore
from sdevid.train.checkpointing.checksum import checksum
from sdevid.train.checkpointing.host_memory import HostMemory
from sdevid.train.checkpointing.saver import SaveError, Saver
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine

FAULTY = Path(__file__).parents[2] / "drills" / "faulty.py"


@pytest.fixture
def begin(world, index):
    """An engine that has taken some steps, its average, and the batches that follow."""

    def make(config, steps: int = 2):
        config.run_dir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        engine = Engine(objectives.build(config), config, world)
        ema = EMA([shard.tensor for shard in engine.parameter_shards()], 0.9)
        batches = stream.steps(index, config, 0, 1, 0)
        for number, batch in enumerate(itertools.islice(batches, steps), start=1):
            engine.step(batch, 1.0, 1e-3)
            ema.update(number)
        return engine, ema, batches

    return make


def same(a: Any, b: Any) -> bool:
    """Whether two loaded states hold the same types, values and tensors, shared alike."""
    if isinstance(a, torch.Tensor):
        shape = (a.untyped_storage().nbytes(), a.storage_offset(), a.stride(), a.requires_grad)
        other = (b.untyped_storage().nbytes(), b.storage_offset(), b.stride(), b.requires_grad)
        return type(a) is type(b) and torch.equal(a, b) and shape == other
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dict__") and not isinstance(a, type):
        return type(a) is type(b) and same(vars(a), vars(b))
    return bool(a == b)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_asynchronous_files_hold_what_synchronous_ones_do(stage, make_config, begin):
    engine, ema, batches = begin(make_config(zero_stage=stage))
    folders = []
    for step, asynchronous in ((2, False), (3, True)):
        with Saver(engine, ema) as saver:
            settings = {"asynchronous": asynchronous}
            saver.settings = saver.settings.model_copy(update=settings)
            saver.save(Progress(8, step))
            if asynchronous:  # the weights move on while the files are being written
                engine.step(next(batches), 1.0, 1e-3)
            saver.wait(strict=True)
        folders.append(checkpoint.folder_of(engine.config.run_dir, step))
    at_once, behind = folders
    names = [path.name for path in checkpoint.files_of(at_once)]
    assert names == [path.name for path in checkpoint.files_of(behind)]
    for name in names:
        if name.endswith(".pt"):
            ours, theirs = (torch.load(f / name, weights_only=False) for f in folders)
            assert same(ours, theirs), name
        else:
            assert (at_once / name).read_bytes() == (behind / name).read_bytes(), name
    first, second = (checkpoint.read_manifest(f) for f in folders)
    assert (first.sums, first.probe) == (second.sums, second.probe)
    assert set(first.sums) == {"weights", "exp_avg", "exp_avg_sq"}


def test_copy_keeps_sharing_and_shares_nothing_with_its_source():
    flat = torch.arange(6.0)
    value = {"a": flat[:2], "b": [flat[1:], nn.Parameter(flat.view(2, 3))], "n": (1, "x")}
    memory = HostMemory()
    memory.begin()
    copied = memory.copy(value)
    memory.finish()
    assert same(copied, value)
    assert copied["a"].data_ptr() + 4 == copied["b"][0].data_ptr()
    flat.zero_()
    assert copied["b"][1].tolist() == [[0, 1, 2], [3, 4, 5]]
    place = copied["a"].data_ptr()
    memory.begin()
    assert memory.copy(value)["a"].data_ptr() == place  # the memory is used again


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_live_engine_repeats_its_steps_from_a_checkpoint(stage, make_config, begin):
    engine, ema, batches = begin(make_config(zero_stage=stage))
    with Saver(engine, ema) as saver:
        for step in (2, 3):
            saver.save(Progress(4 * step, step))
        saver.wait(strict=True)
    following = list(itertools.islice(batches, 3))

    def go_on() -> list[float]:
        scores = [float(engine.step(batch, 1.0, 1e-2)["loss"]) for batch in following]
        ema.update(3)
        return [*scores, *(float(average.sum()) for average in ema.average)]

    first = go_on()
    for _ in range(2):
        assert restore.resume(engine, ema, engine.config, at_most=2) == Progress(8, 2)
        assert go_on() == first
    assert restore.resume(engine, ema, engine.config, at_most=1) is None


def stuck(saver: Saver) -> threading.Event:
    """Let the saver's writes wait for the event that is returned."""
    event, write = threading.Event(), saver.engine.write

    def slow(state: Any, path: str) -> None:
        event.wait(30)
        write(state, path)

    saver.engine.write = slow
    return event


def test_next_save_alone_waits_for_the_disk(make_config, begin):
    engine, ema, _ = begin(make_config())
    with Saver(engine, ema) as saver:
        event = stuck(saver)
        saver.save(Progress(8, 2))
        assert checkpoint.steps(engine.config.run_dir) == []
        threading.Timer(0.2, event.set).start()
        saver.save(Progress(12, 3))
        assert checkpoint.steps(engine.config.run_dir)[-1] == 2
        saver.wait(strict=True)
    assert checkpoint.steps(engine.config.run_dir) == [3, 2]


def test_disk_that_hangs_ends_the_wait(make_config, begin):
    engine, ema, _ = begin(make_config(checkpoint={"patience": 1}))
    saver = Saver(engine, ema)
    event = stuck(saver)
    saver.save(Progress(8, 2))
    began = time.monotonic()
    with pytest.raises(SaveError, match=r"within 1 s \(checkpoint.patience\)"):
        saver.wait()
    assert time.monotonic() - began < 10
    event.set()
    saver.wait()


def full(_state: Any, path: str) -> None:
    raise OSError(28, "No space left on device", path)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_failed_save_warns_and_the_next_one_is_saved(asynchronous, make_config, begin, capsys):
    engine, ema, _ = begin(make_config(checkpoint={"asynchronous": asynchronous}))
    with Saver(engine, ema, whole=True) as saver:
        write, engine.write = engine.write, full
        saver.save(Progress(8, 2))
        saver.wait()
        assert "warning: the checkpoint of step 2 could not be written" in capsys.readouterr().out
        assert list((engine.config.run_dir / "checkpoints").iterdir()) == []
        engine.write = write
        saver.save(Progress(12, 3))
        saver.wait(strict=True)
    assert checkpoint.steps(engine.config.run_dir) == [3]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_failed_save_stops_the_run_where_set_so(asynchronous, make_config, begin, capsys):
    settings = {"asynchronous": asynchronous, "on_failure": "stop"}
    engine, ema, _ = begin(make_config(checkpoint=settings))
    engine.write = full
    with Saver(engine, ema) as saver:
        if asynchronous:
            saver.save(Progress(8, 2))
            saver.wait()
            assert engine.world.asked().stop == "stopped"
            assert "could not be written" in capsys.readouterr().out  # the last save may succeed
        with pytest.raises(SaveError, match="No space left"):
            saver.wait(strict=True) if asynchronous else saver.save(Progress(8, 2))


@pytest.mark.parametrize(("whole", "failures"), [(False, 1), (True, 2)])
def test_first_failed_save_or_two_in_a_row_end_the_run(whole, failures, make_config, begin):
    engine, ema, _ = begin(make_config(checkpoint={"asynchronous": False}))
    engine.write, write = full, engine.write
    with Saver(engine, ema, whole=whole) as saver:
        for step in range(1, failures):
            saver.save(Progress(4 * step, step))
            assert engine.world.asked().stop is None
        with pytest.raises(SaveError, match="No space left"):
            saver.save(Progress(4 * failures, failures))
        assert engine.world.asked().stop == "stopped"
        engine.write = write
        saver.save(Progress(40, 10))  # a good one forgives
        engine.write = full
        saver.save(Progress(44, 11))
    assert checkpoint.steps(engine.config.run_dir) == [10]


def test_metric_that_is_not_logged_cannot_choose_the_best(make_config, begin):
    engine, ema, _ = begin(make_config(checkpoint={"best": "accuracy"}))
    with Saver(engine, ema) as saver, pytest.raises(UserError, match="is accuracy, but no such"):
        saver.save(Progress(8, 2), {"loss": 1.0, "elbo": 2.0})


def test_unknown_best_metric_is_refused_before_the_first_save(make_config, train_here):
    config = make_config(max_clips=4_000, save_every=4_000, checkpoint={"best": "accuracy"})
    with pytest.raises(UserError, match="is accuracy, but no such figure is logged; take one of"):
        train_here(config)
    assert (config.run_dir / "metrics.jsonl").read_text().count("\n") == 1


def tampered(folder: Path, name: str, value: object) -> None:
    manifest = checkpoint.read_manifest(folder)
    assert getattr(manifest, name) != value
    signed = checkpoint.signed(replace(manifest, **{name: value}))
    (folder / "manifest.json").write_text(json.dumps(asdict(signed)), encoding="utf-8")


def test_weights_that_did_not_come_back_are_refused(make_config, train_here):
    config = make_config(max_clips=4)
    train_here(config)
    folder = checkpoint.folder_of(config.run_dir, 1)
    sums = checkpoint.read_manifest(folder).sums
    tampered(folder, "sums", sums | {"exp_avg": "0" * 16})
    with pytest.raises(UserError, match="exp_avg do not have the checksum"):
        train_here(make_config(max_clips=8))


def test_model_that_computes_something_else_is_refused(make_config, train_here):
    config = make_config(max_clips=4)
    train_here(config)
    folder = checkpoint.folder_of(config.run_dir, 1)
    loss = checkpoint.read_manifest(folder).probe
    assert loss is not None
    error = probe.tolerance(config) * abs(loss)
    tampered(folder, "probe", loss + 2 * error)
    with pytest.raises(UserError, match="its probe batch has a loss"):
        train_here(make_config(max_clips=8))
    train_here(make_config(max_clips=8, observation={"scale": 0.3}))  # then it is no wonder


def test_checksum_sees_every_bit_whatever_the_partition():
    torch.manual_seed(0)
    values = torch.randn(1000)

    def total(tensor: torch.Tensor, cuts: list[int]) -> int:
        edges = [0, *cuts, len(tensor)]
        parts = [
            (tensor[a:b], [checkpoint.Slice("w", a, 0, b - a)])
            for a, b in itertools.pairwise(edges)
        ]
        return sum(checksum([part]) for part in parts) % 2**64

    whole = total(values, [])
    assert total(values, [1, 333, 999]) == whole
    for place in (0, 500, 999):
        bits = values.clone().view(torch.int32)
        bits[place] ^= 1
        assert total(bits.view(torch.float32), []) != whole
    swapped = values.clone()
    swapped[[3, 700]] = swapped[[700, 3]]
    assert total(swapped, []) != whole
    assert checksum([(values, [checkpoint.Slice("v", 0, 0, 1000)])]) != whole


@pytest.mark.slow
@pytest.mark.parametrize("on_failure", ["warn", "stop"])
def test_rank_that_cannot_write_ends_the_save_on_all(on_failure, make_config):
    config = make_config(max_clips=40, save_every=4, checkpoint={"on_failure": on_failure})
    path = config.run_dir.with_suffix(".yaml")
    path.write_text(dump(config))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    faults = json.dumps({"small_files": {"rank": 1, "most": 20_000}})
    done = subprocess.run(
        [sys.executable, *launcher, str(FAULTY), faults, "train", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0, done.stderr
    ending = json.loads((config.run_dir / "exit.json").read_text())
    assert (ending["reason"], ending["retry"]) == ("failed", True)
    assert "rank 1: " in ending["message"]
    if on_failure == "warn":
        assert "warning: the checkpoint of step 1 could not be written" in done.stdout
        assert ending["step"] == 10  # it went on to its end, where a failure counts
    else:
        assert ending["step"] < 10
    assert list((config.run_dir / "checkpoints").iterdir()) == []
