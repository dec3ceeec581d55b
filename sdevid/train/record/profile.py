"""A window of training steps recorded by torch.profiler: trace, memory snapshot, table of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from sdevid.config import Config
from sdevid.train.world import World

Item = TypeVar("Item")

WARM_UP = 5  # steps of this start before the window: allocation, tuning and compilation are over
ROWS = 15  # of the table


def recording(items: Iterable[Item], config: Config, world: World) -> Iterator[Item]:
    """Pass the batches on, and record `config.profile_steps` steps of the main rank after five.

    Writes `profile/trace.json` (for Perfetto or chrome://tracing), which has every allocation, on
    CUDA `profile/memory.pickle` too (for PyTorch's memory viewer), and prints where time and memory
    went. Other ranks record nothing.
    """
    if not config.profile_steps or not world.main:
        yield from items
        return
    recorder: profile | None = None
    try:
        for step, item in enumerate(items):
            if step == WARM_UP:
                recorder = _start(world.device)
            elif recorder is not None and step == WARM_UP + config.profile_steps:
                _finish(recorder, config, world)
                recorder = None
            yield item
    finally:  # the run may end within the window
        if recorder is not None:
            _finish(recorder, config, world)


def _start(device: torch.device) -> profile:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.memory._record_memory_history()
    recorder = profile(activities=activities, profile_memory=True)
    recorder.start()
    return recorder


def _finish(recorder: profile, config: Config, world: World) -> None:
    recorder.stop()
    folder = config.run_dir / "profile"
    on_cuda = world.device.type == "cuda"
    try:
        folder.mkdir(exist_ok=True)
        recorder.export_chrome_trace(str(folder / "trace.json"))
        if on_cuda:
            torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))  # type: ignore[no-untyped-call]
            torch.cuda.memory._record_memory_history(enabled=None)
    except OSError as error:
        world.say(f"warning: the profile cannot be written to {folder}: {error}", "warning")
    order = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    table = recorder.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=40)
    memory = "" if on_cuda else "; memory.pickle is of a GPU alone, the trace has the allocations"
    world.say(f"{config.profile_steps} steps recorded in {folder}{memory}\n{table}")
