"""How long training stands still for a checkpoint, saved at once and saved behind it.

    python benchmarks/checkpoint.py [--folder DIR] [--saves 5] [--zero_stage 2]

One process and one model of some 25 million parameters; both ways in one run, in turns. `stall` is
the time that `Saver.save` takes, `probe` what scoring the probe batch takes of it, `published` the
time until the checkpoint has its name. A step is timed alone and while files are being written.
Medians. Results go to benchmarks/results/checkpoint.csv. A folder in memory (tmpfs) is refused.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from sdevid import checkpoint, objectives
from sdevid.checkpoint import Progress
from sdevid.config import Config, parse
from sdevid.evaluate import provenance
from sdevid.train.checkpointing import probe
from sdevid.train.checkpointing.saver import Saver
from sdevid.train.ema import EMA
from sdevid.train.engine import Engine
from sdevid.train.world import World, open_world

RESULTS = Path(__file__).resolve().parent / "results" / "checkpoint.csv"
SIZE: dict[str, Any] = {  # 25 million parameters, with little to compute for each
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 4,
    "batch_size": 2,
    "observation": {"max_context": 2},
    "sde": {"latent_size": 64, "hidden": 2048, "depth": 3, "steps_per_frame": 1},
    "encoder": {"channels": 8, "features": 256, "layers": 2, "map_size": 4},
    "text": {"encoder": "none"},
}
Seconds = dict[str, list[float]]


def filesystem(folder: Path) -> str:
    """Return the kind of file system that a folder is on."""
    mounts = [
        line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    ]
    within = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(within, key=lambda mount: len(mount[0]))[1]


def machine() -> str:
    """Return what the figures were measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return provenance.one_core()


def timed_steps(engine: Engine, count: int) -> list[float]:
    """Return seconds of so many steps."""
    batch, spent = probe.batch(engine.config), []
    for _ in range(count):
        began = time.perf_counter()
        engine.step([batch], 1.0, 1e-5)
        spent.append(time.perf_counter() - began)
    return spent


def save_once(saver: Saver, asynchronous: bool, step: int, seconds: Seconds) -> None:
    """One checkpoint, steps while it is being written, and its times added to `found`."""
    settings = saver.settings.model_copy(update={"asynchronous": asynchronous})
    saver.settings = settings
    began = time.perf_counter()
    saver.save(Progress(step, step))
    seconds["stall"].append(time.perf_counter() - began)
    thread = saver._thread
    while thread is not None and thread.is_alive():
        seconds["step while writing"] += timed_steps(saver.engine, 1)
    saver.wait(strict=True)
    seconds["published"].append(time.perf_counter() - began)


def measure(config: Config, world: World, saves: int) -> tuple[dict[bool, Seconds], float, float]:
    """Return times by whether asynchronous, MB written, and the seconds of a probe."""
    torch.manual_seed(0)
    engine = Engine(objectives.build(config), config, world)
    ema = EMA([shard.tensor for shard in engine.parameter_shards()], config.ema_decay)
    names = ("stall", "published", "step alone", "step while writing")
    seconds: dict[bool, Seconds] = {way: {name: [] for name in names} for way in (False, True)}
    timed_steps(engine, 2)
    with Saver(engine, ema) as saver:
        for number in range(1, 2 * (saves + 1) + 1):
            way = bool(number % 2)
            alone = timed_steps(engine, 2)
            kept = (
                seconds[way] if number > 2 else {name: [] for name in names}
            )  # one of each to warm
            kept["step alone"] += alone
            save_once(saver, way, number, kept)
    folder = checkpoint.folder_of(config.run_dir, 2 * (saves + 1))
    size = sum(path.stat().st_size for path in folder.rglob("*")) / 1e6
    began = time.perf_counter()
    probe.score(engine)
    return seconds, size, time.perf_counter() - began


def write(
    seconds: dict[bool, Seconds], parameters: int, size: float, probed: float, kind: str
) -> None:
    """The table, printed and kept."""
    kits = {kit: importlib.metadata.version(kit) for kit in ("torch", "deepspeed", "safetensors")}
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "file system": kind,
        **kits,
    }
    whole = statistics.median(seconds[False]["stall"])
    with RESULTS.open("w", newline="") as file:
        rows = [_row(seconds[way], way, whole) for way in (False, True)]
        lead = {"parameters": parameters, "MB": f"{size:.0f}", "probe s": f"{probed:.3f}"}
        writer = csv.DictWriter(file, [*rows[0], *lead, *about])
        writer.writeheader()
        for row in rows:
            print(row)
            writer.writerow(row | lead | about)


def _row(times: Seconds, asynchronous: bool, whole: float) -> dict[str, str]:
    median = {name: statistics.median(values) for name, values in times.items() if values}
    beside = median.get("step while writing")
    return {
        "saving": "behind training" if asynchronous else "at once",
        "stall s": f"{median['stall']:.3f}",
        "share of at once": f"{median['stall'] / whole:.3f}",
        "published s": f"{median['published']:.3f}",
        "step alone s": f"{median['step alone']:.3f}",
        "step while writing s": "none runs" if beside is None else f"{beside:.3f}",
        "saves": str(len(times["stall"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--saves", type=int, default=5, help="of each way")
    parser.add_argument("--zero_stage", type=int, default=2)
    options = parser.parse_args()
    kind = filesystem(options.folder)
    if kind in ("tmpfs", "ramfs"):
        parser.error(f"--folder {options.folder} is in memory ({kind}); name one on a disk")
    run_dir = Path(tempfile.mkdtemp(prefix="sdevid-checkpoint-", dir=options.folder))
    try:
        config = parse(SIZE | {"run_dir": str(run_dir), "zero_stage": options.zero_stage})
        with open_world() as world:
            seconds, size, probed = measure(config, world, options.saves)
        parameters = sum(p.numel() for p in objectives.build(config).parameters())
        write(seconds, parameters, size, probed, kind)
    finally:
        shutil.rmtree(run_dir)


if __name__ == "__main__":
    main()
