"""A few samples of each checkpoint while training goes on, for the page to play."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sdevid import checkpoint
from sdevid.config import Config
from sdevid.data import shards, stream
from sdevid.data.folder import Access
from sdevid.data.webdataset_reader import TarStream
from sdevid.errors import UserError
from sdevid.train.checkpointing.saver import Saver
from sdevid.train.training_data import TrainingData
from sdevid.train.world import World

if TYPE_CHECKING:
    from sdevid.sample.video_sde import VideoSDE

FOLDER = "training_samples"
MOST = 4  # videos
_VALUES = 1 << 24  # of them together, at most
HELD_OUT = "val"


class SampleMaker:
    """Makes samples of every `sample_every`-th checkpoint, on the main rank alone.

    The checkpoint on the disk is read, so that neither sharded weights nor the random states of
    training are touched; the averaged weights sample. A failure is reported and does not end the
    run.
    """

    def __init__(self, config: Config, index: TrainingData, world: World) -> None:
        self._config, self._index, self._world = config, index, world
        self._folder = config.run_dir / FOLDER
        self._seen = 0  # checkpoints since the start

    def follow(self, saver: Saver) -> None:
        """Sample from the checkpoints written since the last call that are due for it."""
        new, self._seen = saver.saved[self._seen :], len(saver.saved)
        every = self._config.sample_every
        for number, step in enumerate(new, start=self._seen - len(new) + 1):
            if self._world.main and every and number % every == 0:
                self._try(step)

    def _try(self, step: int) -> None:
        gpus = [self._world.device.index or 0] if self._world.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=gpus):
                self._make(step)
        except Exception as error:  # a run must not end by what only illustrates it
            self._world.say(f"warning: no samples of step {step:,}: {error}", "warning")

    def _make(self, step: int) -> None:
        from sdevid.sample.video_sde import VideoSDE

        folder = checkpoint.folder_of(self._config.run_dir, step)
        model = VideoSDE.from_pretrained(folder, device=str(self._world.device))
        count = _count(model)
        videos = model.sample(num_samples=count, seed=self._config.seed, batch_size=count)
        from sdevid.sample.write import shown

        self._folder.mkdir(exist_ok=True)
        real = self._folder / "real.npz"
        if not real.is_file() and (pictures := self._real(count)) is not None:
            self._write("real", generated=shown(pictures))
        clips = checkpoint.read_manifest(folder).clips
        figures = {"step": step, "clips": clips, "seed": self._config.seed}
        self._write(f"step_{step}", generated=shown(videos), **figures)

    def _real(self, count: int) -> np.ndarray | None:
        """Read held-out clips to set beside the samples; training clips where there are none.

        None of a stream, which has no clips by number.
        """
        if isinstance(self._index, TarStream):
            return None
        try:
            index = shards.open_shards(self._config.data, HELD_OUT, Access.of(self._config))
        except UserError:
            index = self._index
        return stream.fixed(index, self._config, range(min(count, len(index)))).values

    def _write(self, name: str, **arrays: np.ndarray | int) -> None:
        path, aside = self._folder / f"{name}.npz", self._folder / f".{name}.npz"
        np.savez_compressed(aside, fps=self._config.fps, **arrays)  # type: ignore[arg-type]
        aside.replace(path)


def _count(model: VideoSDE) -> int:
    config = model.config
    return max(1, min(MOST, _VALUES // config.values_per_clip))
