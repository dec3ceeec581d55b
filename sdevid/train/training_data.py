"""The data of a run: shards read by their index, or a stream of tars without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdevid.checkpoint import Progress
from sdevid.config import Config
from sdevid.data import shards, stream, webdataset_reader
from sdevid.data.folder import Access
from sdevid.data.shards import ShardIndex
from sdevid.data.webdataset_reader import TarReader, TarStream
from sdevid.train.world import World
from sdevid.types import Batch

TrainingData = ShardIndex | TarStream


class IndexReader:
    """One rank's batches of indexed shards; the count of clips alone says where to carry on."""

    def __init__(self, index: ShardIndex, config: Config, world: World) -> None:
        self._index, self._config, self._world = index, config, world

    def cursors(self) -> list[dict[str, Any]]:
        """List no cursors: the order is a function of the count."""
        return []

    def steps(self, start: int) -> Iterator[list[Batch]]:
        """Yield this rank's micro-batches of one optimizer step after the other, without end."""
        world = self._world
        return stream.steps(self._index, self._config, world.rank, world.size, start)


def open_data(config: Config, world_size: int) -> TrainingData:
    """Open what `data` names, as `data_reader` says. UserError where it is not there."""
    if config.data_reader == "webdataset":
        return webdataset_reader.open_tars(config, world_size)
    return shards.open_shards(config.data, config.split, Access.of(config))


def open_reader(
    data: TrainingData, config: Config, world: World, progress: Progress
) -> IndexReader | TarReader:
    """Open this rank's part of the data, at the cursors of a checkpoint; say what it is."""
    if isinstance(data, ShardIndex):
        return IndexReader(data, config, world)
    reader = TarReader(data, world.rank, world.size, progress.cursors)
    world.say(data.summary(world.size))
    if reader.restarted:
        world.say(
            f"the checkpoint is of {len(progress.cursors)} streams, not of these: the rest of "
            "their epoch is left out, and the next one begins",
            "warning",
        )
    return reader


def total_clips(data: TrainingData, config: Config) -> int:
    """Count the clips of the whole run."""
    if isinstance(data, ShardIndex):
        return stream.total_clips(data, config)
    return len(data)


def with_cursors(progress: Progress, reader: IndexReader | TarReader, world: World) -> Progress:
    """Note in `progress` how far every rank's streams have read. Every rank calls it."""
    progress.cursors = [cursor for part in world.gather(reader.cursors()) for cursor in part]
    return progress
