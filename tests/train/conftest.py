"""A small model, drawn clips, and one process group for the tests of training."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factories
import pytest

from sdevid.checkpoint import Progress
from sdevid.config import Config, parse
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.train.loop import train
from sdevid.train.world import World, open_world

ROOT = Path(__file__).resolve().parents[2]
SMALL = factories.settings(
    batch_size=4,
    log_every=4,
    warmup_clips=8,
    sde={"latent_size": 2, "content_size": 3, "hidden": 8, "depth": 1, "steps_per_frame": 1},
    encoder={"channels": 4, "features": 8},
    observation={"max_context": 2},
)

MakeConfig = Callable[..., Config]
Train = Callable[[Config], str]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("shards")
    tool = [sys.executable, "tools/make_shards.py", "--dataset", "double-well", "--workers", "1"]
    shape = ["--num_clips", "24", "--frame_size", "16", "--clip_length", "8", "--store", "npy"]
    subprocess.run(
        [*tool, *shape, "--output_dir", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="session")
def index(shards: Path) -> ShardIndex:
    return open_shards(shards, "train")


@pytest.fixture
def make_config(tmp_path: Path, shards: Path) -> MakeConfig:
    """The small config with other settings; sections are merged."""

    def make(run: str = "run", **settings: Any) -> Config:
        merged = SMALL | {"data": str(shards), "run_dir": str(tmp_path / run)}
        for name, value in settings.items():
            old = merged.get(name)
            merged[name] = old | value if isinstance(old, dict) else value
        return parse(merged)

    return make


@pytest.fixture(scope="session")
def one_world() -> Iterator[World]:
    """The session's only process group: DeepSpeed keeps hold of the first that it sees."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with open_world() as world:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield world


def unasked(world: World) -> World:
    """The same world, which nobody has asked to stop."""
    return World(world.rank, world.size, world.device, world.control)


@pytest.fixture
def world(one_world: World) -> World:
    """A world of this process, which nobody has asked to stop."""
    return unasked(one_world)


def trainer(world: World, index: ShardIndex) -> Train:
    """What trains in this process and returns the ending."""

    def run(config: Config) -> str:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        return train(config, index, world, Progress())

    return run


@pytest.fixture
def train_here(world: World, index: ShardIndex) -> Train:
    """Train in this process; the ending."""
    return trainer(world, index)


@pytest.fixture
def train_restarted(world: World, index: ShardIndex) -> Train:
    """Train as a process started anew does, whatever `world` was asked before; the ending."""
    return trainer(unasked(world), index)
