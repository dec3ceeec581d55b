"""Which clips, in which order, on which rank: a pure function of the seed and of clips consumed.

The order of all epochs, one after the other, is one sequence; a clip's place in it is its serial,
which also keys its noise. Global batches are cut from that sequence, and every rank takes its
part, so that neither the number of ranks nor a resume changes what a batch holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64

from sdevid.config import Config
from sdevid.data.shards import Clip, ShardIndex
from sdevid.errors import UserError
from sdevid.sde.noise import Stream, uniform
from sdevid.types import Batch, frame_ticks

_FPS_TOLERANCE = 0.01  # relative
_STEPS_AHEAD = 2  # optimizer steps decoded in advance, where there are workers


def check(index: ShardIndex, config: Config) -> None:
    """Raise UserError where the clips do not fit the config."""
    where = f"shards {index.folder}, split {index.split}"
    for clip in index.clips:
        size = config.frame_size
        if (clip.height, clip.width) != (size, size):
            raise UserError(
                f"frame_size is {size}, but {where} hold frames of {clip.width}x{clip.height} "
                f"(clip {clip.key}); set frame_size={clip.height} or cut with --frame_size {size}"
            )
        if clip.channels != config.channels:
            raise UserError(
                f"channels is {config.channels}, but {where} hold frames of {clip.channels} "
                f"(clip {clip.key}); set channels={clip.channels}"
            )
        if clip.num_frames < config.sequence_length:
            raise UserError(
                f"sequence_length is {config.sequence_length}, but {where} hold clips of "
                f"{clip.num_frames} frames (clip {clip.key}); set sequence_length="
                f"{clip.num_frames} or cut with --clip_length {config.sequence_length}"
            )
        if abs(clip.fps - config.fps) > _FPS_TOLERANCE * config.fps:
            raise UserError(
                f"fps is {config.fps:g}, but {where} hold clips at {clip.fps:g} frames a second "
                f"(clip {clip.key}); set fps={clip.fps:g} or cut with --fps {config.fps:g}"
            )


def total_clips(index: ShardIndex, config: Config) -> int:
    """Clips of the whole run: `num_epochs` epochs, or `max_clips` if that is less."""
    whole = config.num_epochs * len(index)
    return whole if config.max_clips is None else min(whole, config.max_clips)


def epoch_order(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
    """A permutation of 0..size-1 for one epoch, by sorting hashes of (seed, epoch, clip).

    The hash is splitmix64's finalizer (Steele, Lea & Flood 2014), so the order stays the same
    under any version of any library.
    """
    start = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(epoch))
    return np.argsort(_mix(start + np.arange(size, dtype=np.uint64)), kind="stable")


def micro_batch_size(config: Config, world_size: int) -> int:
    """Clips a rank and pass. UserError where the ranks cannot share the batch evenly."""
    unit = world_size * (config.micro_batch_size or 1)
    if config.batch_size % unit:
        below = config.batch_size // unit * unit
        near = f"{below} or {below + unit}" if below else str(unit)
        raise UserError(
            f"batch_size is {config.batch_size}, but {world_size} ranks with micro-batches of "
            f"{config.micro_batch_size or 'any number of'} clips need a multiple of {unit}; set "
            f"batch_size={near}"
        )
    return config.micro_batch_size or config.batch_size // world_size


def steps(
    index: ShardIndex, config: Config, rank: int, world_size: int, start: int
) -> Iterator[list[Batch]]:
    """This rank's micro-batches of one optimizer step after the other, without end.

    `start` is the number of clips consumed, over all ranks. With `data_workers` that many threads
    decode ahead.
    """
    micro = micro_batch_size(config, world_size)
    share = config.batch_size // world_size
    if config.data_workers == 0:
        for first in _step_starts(start, config.batch_size, rank * share):
            yield [
                _batch(index, config, range(k, k + micro))
                for k in range(first, first + share, micro)
            ]
    with ThreadPoolExecutor(config.data_workers, thread_name_prefix="decode") as pool:
        ahead: deque[list[Future[Batch]]] = deque()
        for first in _step_starts(start, config.batch_size, rank * share):
            ahead.append(
                [
                    pool.submit(_batch, index, config, range(k, k + micro))
                    for k in range(first, first + share, micro)
                ]
            )
            if len(ahead) > _STEPS_AHEAD:
                yield [batch.result() for batch in ahead.popleft()]


def fixed(index: ShardIndex, config: Config, clips: range) -> Batch:
    """The clips with these numbers in the index, as one batch, always the same; for evaluation."""
    serial = torch.arange(clips.start, clips.stop, clips.step)
    return _assemble([index.read(i) for i in clips], serial, config)


def _step_starts(start: int, batch_size: int, offset: int) -> Iterator[int]:
    while True:
        yield start + offset
        start += batch_size


def _batch(index: ShardIndex, config: Config, serials: range) -> Batch:
    size = len(index)
    numbers = [int(_order(config.seed, s // size, size)[s % size]) for s in serials]
    serial = torch.arange(serials.start, serials.stop)
    return _assemble([index.read(i) for i in numbers], serial, config)


def _assemble(clips: list[Clip], serial: torch.Tensor, config: Config) -> Batch:
    length = config.sequence_length
    place = uniform(config.seed, serial, Stream.CROP, (1,))[:, 0].tolist()
    first = [int(u * (len(c.video) - length + 1)) for u, c in zip(place, clips, strict=True)]
    video = np.stack([c.video[k : k + length] for k, c in zip(first, clips, strict=True)])
    return Batch(
        video=torch.from_numpy(video),
        ticks=frame_ticks(length, config.fps).repeat(len(clips), 1),
        serial=serial,
        keys=tuple(clip.key for clip in clips),
        captions=tuple(str(clip.meta.get("caption", "")) for clip in clips),
    )


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
    return epoch_order(seed, epoch, size)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
