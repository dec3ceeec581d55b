"""An optimizer's step of a config on this device: clips a second, launches, waits and MFU.

    python benchmarks/gpu_step.py --config default [--seconds 6] [--output FILE] [key=value ...]

Clips are random and lie in memory; the engine is training's. Launches and waits are the CUDA
runtime's calls in one step, as PyTorch's profiler sees them; a CPU has none. MFU is given where the
device's peak is known.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sdevid import objectives
from sdevid.cli import run_config
from sdevid.config import Config, load
from sdevid.data.stream import micro_batch_size
from sdevid.train import device_settings
from sdevid.train.engine import Engine
from sdevid.train.summary.utilization import utilization_on
from sdevid.train.world import World, open_world
from sdevid.types import Batch

WARM_UPS = 4  # kernels are compiled, and shapes that come again are captured
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHING = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
COLUMNS = ("name", "figure", "value")


def random_batches(config: Config, world: World) -> list[Batch]:
    """Draw the micro-batches of a step, in pinned memory where there is a GPU."""
    micro, frames = micro_batch_size(config, world.size), config.sequence_length
    shape = (micro, frames, *config.frame_shape, config.channels)
    is_gpu = world.device.type == "cuda"
    batches = []
    for k in range(config.batch_size // (micro * world.size)):
        video = torch.randint(0, 256, shape, dtype=torch.uint8)
        ticks = config.frame_ticks(frames).repeat(micro, 1)
        serial = torch.arange(k * micro, (k + 1) * micro)
        tensors = [x.pin_memory() if is_gpu else x for x in (video, ticks, serial)]
        batches.append(Batch(*tensors, ("",) * micro, ("",) * micro))
    return batches


def synchronize(world: World) -> None:
    """Wait for the device."""
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def calls_of_a_step(engine: Engine, batches: list[Batch], rate: float) -> dict[str, str]:
    """Count the launches and waits of a step on a GPU."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        engine.step(batches, 1.0, rate)
    names = [event.name for event in record.events()]
    launches = sum(name.startswith(LAUNCHING) for name in names)
    return {"launches": str(launches), "waits": str(sum(name in WAITING for name in names))}


def measure(config: Config, world: World, seconds: float) -> dict[str, str]:
    """Return a step's figures by name; loss in nats a clip."""
    torch.manual_seed(config.seed)
    objective = objectives.build(config)
    if device_settings.is_channels_last(config, world.device):
        device_settings.set_channels_last(objective)
    engine, batches = Engine(objective, config, world), random_batches(config, world)
    rate = config.learning_rate
    for _ in range(WARM_UPS):
        engine.step(batches, 1.0, rate)
    synchronize(world)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        loss = engine.step(batches, 1.0, rate)["loss"]
        steps += 1
    synchronize(world)
    clips_per_s = steps * config.batch_size / (time.perf_counter() - began)
    figures = {"clips/s": f"{clips_per_s:.4g}", "loss, nats": f"{float(loss):.5g}"}
    if world.device.type == "cuda":
        figures |= calls_of_a_step(engine, batches, rate)
        figures["peak memory, MiB"] = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}"
    utilization = utilization_on(world.device, config)
    if utilization is not None:
        figures["MFU"] = f"{utilization.share(clips_per_s, world.size):.4f}"
    return figures


def add(name: str, figures: dict[str, str], path: Path) -> None:
    """Append a row a figure to a CSV."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows((name, figure, value) for figure, value in figures.items())


def main() -> None:
    """Measure one config and print its figures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", default="default")
    parser.add_argument("--name", help="of the rows in the CSV; the config's and its settings'")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--output", type=Path, help="CSV that rows are added to")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    config = load(run_config.config_path(options.config), options.overrides)
    with open_world() as world, device_settings.backend_flags(config):
        figures = measure(config, world, options.seconds)
    name = options.name or " ".join([options.config, *options.overrides])
    print(name, *(f"{figure} {value}" for figure, value in figures.items()), sep="; ")
    if options.output is not None:
        add(name, figures, options.output)


if __name__ == "__main__":
    main()
