"""Trial runs of a tiny model for the drills: started, broken, carried on, compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from sdevid import checkpoint
from sdevid.config import dump, parse

ROOT = Path(__file__).resolve().parents[2]
STEPS, SIZE = 12, 12  # optimizer steps of a run, clips a step: 1 to 4 ranks can share them
PATIENCE = 240  # seconds that a start may take
SHUTDOWN = 20  # seconds that torchrun leaves to the ranks when one has died
TIMED = {"time", "data_wait", "clips_per_s", "steps_per_s", "slow_rank", "slow_ratio"}
SETTINGS: dict[str, Any] = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 6,
    "batch_size": SIZE,
    "log_every": SIZE,
    "save_every": 2 * SIZE,
    "max_clips": STEPS * SIZE,
    "preflight": False,
    "sde": {"latent_size": 2, "content_size": 3, "hidden": 8, "depth": 1, "steps_per_frame": 1},
    "encoder": {"channels": 4, "features": 8, "layers": 1, "heads": 2, "map_size": 4},
    "observation": {"max_context": 2},
    "text": {"encoder": "none"},
}
TORCHRUN = [
    *("-m", "torch.distributed.run", "--standalone", "--max-restarts", "0"),
    *("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR2", "--shutdown-timeout", str(SHUTDOWN)),
]


def draw_clips(folder: Path) -> Path:
    """Shards of 48 clips of a disc."""
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "double-well", "--workers", "1"]
    shape = ["--num_clips", "48", "--frame_size", "16", "--clip_length", "8", "--store", "npy"]
    subprocess.run(
        [*tool, *shape, "--output_dir", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@dataclass
class Attempt:
    """One start of a run that has ended: its exit code, what it said, how far it had come."""

    code: int
    output: str
    began: int  # the step that it carried on from
    reached: int  # the last step in metrics.jsonl

    def line(self, part: str) -> str:
        """The line of what it said that has `part` in it."""
        result = [line for line in self.output.splitlines() if part in line]
        assert result, f"{part!r} was not output:\n{self.output}"
        return result[0]


@dataclass
class Run:
    """A run in `folder`; every start may have other ranks and faults (see faulty.py)."""

    folder: Path
    data: Path | str  # a folder, or a URL
    ranks: int = 2
    settings: dict[str, Any] = field(default_factory=dict)

    def command(self, faults: dict[str, Any] | None = None, ranks: int | None = None) -> list[str]:
        """What starts or carries on the run; writes its config."""
        path = self.folder.with_suffix(".yaml")
        arguments = SETTINGS | self.settings | {"run_dir": str(self.folder), "data": str(self.data)}
        path.write_text(dump(parse(arguments)))
        size = ranks or self.ranks
        launcher = [] if size == 1 else [*TORCHRUN, "--nproc-per-node", str(size)]
        faulty = [str(ROOT / "tests/drills/faulty.py"), json.dumps(faults or {})]
        return [sys.executable, *launcher, *faulty, "train", "--config", str(path)]

    def start(
        self,
        faults: dict[str, Any] | None = None,
        ranks: int | None = None,
        output: IO[str] | int = subprocess.PIPE,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start or carry on, in a session of its own."""
        return subprocess.Popen(
            self.command(faults, ranks),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )

    def ended(self, process: subprocess.Popen[str]) -> Attempt:
        """Wait for the end of a start."""
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its ranks, which are in sessions of their own
            output, _ = process.communicate(timeout=2 * SHUTDOWN)
            raise AssertionError(f"not ended after {PATIENCE} s:\n{output}") from None
        began = next((line for line in output.splitlines() if "carries on from step" in line), None)
        step = int(began.partition("from step ")[2].partition(",")[0]) if began else 0
        return Attempt(process.returncode, output, step, self.reached())

    def attempt(self, faults: dict[str, Any] | None = None, ranks: int | None = None) -> Attempt:
        """Start, and wait for the end."""
        return self.ended(self.start(faults, ranks))

    def finish(self, ranks: int | None = None) -> Attempt:
        """Carry on without faults to the end of the run."""
        ended = self.attempt(ranks=ranks)
        assert (ended.code, self.ending()["reason"]) == (0, "done"), ended.output
        return ended

    def reached(self) -> int:
        lines = self.lines()
        return int(lines[-1]["step"]) if lines else 0

    def lines(self) -> list[dict[str, float]]:
        """metrics.jsonl without what the clock wrote, and without a torn last line."""
        path = self.folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [{n: v for n, v in line.items() if n not in TIMED} for line in whole]

    def ending(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "exit.json").read_text()))

    def weights(self) -> dict[str, torch.Tensor]:
        """Weights and their average at the end, from a whole checkpoint of the last step."""
        folder = checkpoint.folder_of(self.folder, STEPS)
        assert not checkpoint.faults(folder, checkpoint.read_manifest(folder))
        return {
            f"{which} {name}": tensor
            for which in ("ema", "raw")
            for name, tensor in checkpoint.read_weights(folder, which).items()
        }

    def wait_until(self, path: Path, process: subprocess.Popen[str]) -> None:
        while not path.exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)


def equal(run: Run, whole: Run) -> str:
    """Hold a run to the uninterrupted one, to the bit: weights, their average, every line."""
    assert run.lines() == whole.lines()
    got, expected = run.weights(), whole.weights()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    return "equal to the bit"


def close(run: Run, whole: Run) -> str:
    """The same, up to the order of float32 sums over other numbers of ranks.

    One rounding is 2**-24; Adam divides by the root of a squared gradient, so where that is near 0
    a rounding moves a weight by up to the learning rate (3e-4) a step: hence the absolute bound.
    """
    got, expected = run.weights(), whole.weights()
    assert got.keys() == expected.keys()
    furthest = max(float((got[n] - expected[n]).abs().max()) for n in got)
    for name in got:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-2, atol=2e-4)
    assert [line["clips"] for line in run.lines()] == [line["clips"] for line in whole.lines()]
    for a, b in zip(run.lines(), whole.lines(), strict=True):
        assert abs(a["loss"] - b["loss"]) <= 1e-4 * abs(b["loss"])
    return f"equal within {furthest:.1e}"


class References:
    """Uninterrupted runs, each made once, whichever drill asks first."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder, self._data = folder, data
        self._made: dict[str, Run] = {}
        self._lock = threading.Lock()

    def get(self, ranks: int = 2, data: Path | None = None, **settings: Any) -> Run:
        """The uninterrupted run with these ranks and settings."""
        key = json.dumps([ranks, str(data), settings], sort_keys=True)
        with self._lock:
            if key not in self._made:
                name = self._folder / f"whole-{len(self._made)}"
                run = Run(name, data or self._data, ranks, settings)
                run.finish()
                self._made[key] = run
            return self._made[key]
