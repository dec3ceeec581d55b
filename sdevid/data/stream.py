"""Which clips, in which order, on which rank: a pure function of the seed and of clips consumed.

The order of all epochs, one after the other, is one sequence; a clip's place in it is its serial,
which also keys its noise. Global batches are cut from that sequence, and every rank takes its
part, so that neither the number of ranks nor a resume changes what a batch holds. A damaged clip's
serial goes to the next whole clip of the sequence, which every rank finds alone.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from sdevid import frame_size
from sdevid.config import Config
from sdevid.data import times
from sdevid.data.entry import DamagedClipError, Kind
from sdevid.data.mask import Mask
from sdevid.data.order import Order
from sdevid.data.payload import ClipVideo
from sdevid.data.shards import Beside, ShardIndex
from sdevid.data.transforms import Transform
from sdevid.deprecation import former_names
from sdevid.errors import UserError
from sdevid.sde.noise import Stream, uniform
from sdevid.types import Batch, Damage, Embedding, Video

_FPS_TOLERANCE = 0.01  # relative
_MOST_IN_A_ROW = 1_000  # damaged clips, before the data is given up
_MOST_USED = 8  # batches whose memory is used again: to a new page, a read takes half as long again
_STEPS_AHEAD = 2  # optimizer steps decoded in advance, where there are workers


def check_clips(index: ShardIndex, config: Config) -> None:
    """Raise UserError where the clips do not fit the config."""
    for kind in sorted(index.clips.kinds):
        fault = misfit(kind, config)
        if fault is None:
            continue
        key = next(clip.key for clip in index.clips if clip.kind == kind)
        where = f"shards {index.folder.location}, split {index.split}, hold"
        raise UserError(fault.format(where=where, key=f"(clip {key})"))


def misfit(kind: Kind, config: Config) -> str | None:
    """Explain why clips of this kind do not fit; the caller fills in {where} and {key}."""
    size, frames = config.frame_text, kind.num_frames
    if (kind.height, kind.width) != config.frame_shape:
        there = frame_size.text((kind.height, kind.width))
        return (
            f"frame_size is {size}, but {{where}} frames of {kind.width}x{kind.height} {{key}}; "
            f"set frame_size={there} or cut with --frame_size {size}"
        )
    if kind.channels != config.channels:
        cut = {1: "grey", 3: "rgb"}.get(config.channels, "keep")
        return (
            f"channels is {config.channels}, but {{where}} frames of {kind.channels} {{key}}; set "
            f"channels={kind.channels}, or cut them with --channels {cut}"
        )
    if frames < config.sequence_length:
        return (
            f"sequence_length is {config.sequence_length}, but {{where}} clips of {frames} frames "
            f"{{key}}; set sequence_length={frames} or cut with --clip_length "
            f"{config.sequence_length}"
        )
    if frames < times.reach(config):
        return (
            f"frame_strides are {', '.join(map(str, config.frame_strides))}, so that a clip needs "
            f"{times.reach(config)} frames, but {{where}} clips of {frames} {{key}}; give smaller "
            "strides or a smaller sequence_length"
        )
    if abs(kind.fps - config.fps) > _FPS_TOLERANCE * config.fps:
        return (
            f"fps is {config.fps:g}, but {{where}} clips at {kind.fps:g} frames a second {{key}}; "
            f"set fps={kind.fps:g} or cut with --fps {config.fps:g}"
        )
    return None


def total_clips(index: ShardIndex, config: Config) -> int:
    """Count the clips of the whole run: `num_epochs` epochs, or `max_clips` if that is less."""
    whole = config.num_epochs * len(index)
    return whole if config.max_clips is None else min(whole, config.max_clips)


def micro_batch_size(config: Config, world_size: int) -> int:
    """Compute the clips of a rank and pass. UserError where ranks cannot share a batch evenly."""
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
    """Yield this rank's micro-batches of one optimizer step after the other, without end.

    `start` is the number of clips consumed, over all ranks. With `data_workers` that many threads
    decode ahead. Where there is a GPU, batches lie in pinned memory: it copies from there while the
    host goes on.
    """
    micro = micro_batch_size(config, world_size)
    share = config.batch_size // world_size
    order = Order(index.shard_sizes, config.seed, config.shuffle_window)

    def in_order(serial: int) -> Iterator[int]:
        return (order.clip(place) for place in range(serial, serial + _MOST_IN_A_ROW))

    reader = _BatchReader(index, config, in_order, torch.cuda.is_available())
    firsts = count(start + rank * share, config.batch_size)
    parts = ([range(k, k + micro) for k in range(f, f + share, micro)] for f in firsts)
    if config.data_workers == 0:
        yield from ([reader.batch(serials) for serials in step] for step in parts)
    with ThreadPoolExecutor(config.data_workers, thread_name_prefix="decode") as pool:
        ahead: deque[list[Callable[[], Batch]]] = deque()
        try:
            for step in parts:
                ahead.append([reader.begin(serials, pool) for serials in step])
                if len(ahead) > _STEPS_AHEAD:
                    yield [finish() for finish in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def fixed(index: ShardIndex, config: Config, clips: range) -> Batch:
    """Read the clips with these numbers as one batch for evaluation, always the same.

    Frames follow each other at the config's rate, whatever the training's strides: of clips at k
    times that rate, every k-th. Raises UserError, which names the clip, where one is damaged.
    """
    return _BatchReader(
        index, at_own_rate(index, config), lambda number: iter((number,)), pinned=False
    ).batch(clips)


def at_own_rate(index: ShardIndex, config: Config) -> Config:
    """Copy `config` with the stride that takes its rate from the clips', which is a multiple."""
    whole, kinds = times.every_frame(config), index.clips.kinds
    stride = round(min(kind.fps for kind in kinds) / config.fps) if kinds else 1
    if stride < 2:
        return whole
    return whole.model_copy(update={"fps": stride * config.fps, "frame_strides": (stride,)})


def first_frame(index: ShardIndex, config: Config, number: int) -> int:
    """Compute the frame at which `fixed` begins in the clip with this number."""
    crop = uniform(config.seed, torch.tensor([number]), Stream.CROP, (1,)).item()
    reach = times.reach(at_own_rate(index, config))
    return _cut(crop, index.clips[number].num_frames, reach)


def _cut(share: float, frames: int, length: int) -> int:
    return int(share * (frames - length + 1))


class _Filled(NamedTuple):
    """What stands at one place of a batch, and what should have."""

    key: str
    caption: str
    embedding: Embedding | None
    damage: list[Damage]
    ticks: Int64[Tensor, " time"] | None = None  # of its frames, where they are uneven


@dataclass(frozen=True)
class _BatchReader:
    """Puts batches together, each clip straight into its place.

    `candidates` gives the clips that a serial may stand for: the first that is not damaged does.
    """

    index: ShardIndex
    config: Config
    candidates: Callable[[int], Iterator[int]]
    pinned: bool
    _used: list[ClipVideo] = field(default_factory=list)  # memory of earlier batches

    @cached_property
    def dtype(self) -> str:
        """Type of a batch: as stored (uint8, or float16 latents), or float32.

        float32 where there is a transform or a mask; NaN marks what was not observed.
        """
        index = self.index
        return index.dtype if index.transform is None and not index.masked else "float32"

    def batch(self, serials: range) -> Batch:
        """Read the clips of `serials` in this thread."""
        video = self._room(serials)
        return self._finished(video, serials, self._fill(serials, video.numpy()))

    def begin(self, serials: range, pool: ThreadPoolExecutor) -> Callable[[], Batch]:
        """Divide the work among the threads of `pool`; the result waits for them."""
        video = self._room(serials)
        ends = np.linspace(0, len(serials), min(self.config.data_workers, len(serials)) + 1)
        shares = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        work = [pool.submit(self._fill, serials[part], video[part].numpy()) for part in shares]
        return lambda: self._finished(video, serials, [f for part in work for f in part.result()])

    def _room(self, serials: range) -> Video:
        frame = self.index.stored(self.index.clips[0])[1][1:]
        shape = len(serials), self.config.sequence_length, *frame
        if self.pinned:  # torch keeps and gives again what is pinned
            return torch.empty(shape, dtype=getattr(torch, self.dtype), pin_memory=True)
        for pixels, references in zip(self._used, _references(self._used), strict=True):
            if pixels.shape == shape and references == _UNHELD:
                return torch.from_numpy(pixels)
        pixels = np.empty(shape, self.dtype)
        if len(self._used) < _MOST_USED:
            self._used.append(pixels)
        return torch.from_numpy(pixels)

    def _finished(self, video: Video, serials: range, filled: list[_Filled]) -> Batch:
        serial = torch.arange(serials.start, serials.stop, serials.step)
        embeddings = tuple(p.embedding for p in filled if p.embedding is not None)
        ticks = times.ticks(self.config, times.frame_indices(self.config, serial))
        for row, place in enumerate(filled):
            if place.ticks is not None:
                ticks[row] = place.ticks
        if self.pinned:
            ticks, serial = ticks.pin_memory(), serial.pin_memory()
        return Batch(
            video=video,
            ticks=ticks,
            serial=serial,
            keys=tuple(place.key for place in filled),
            captions=tuple(place.caption for place in filled),
            damage=tuple(damage for place in filled for damage in place.damage),
            embeddings=embeddings if self.index.embedded else None,
        )

    def _fill(self, serials: range, videos: UInt8[np.ndarray, "..."]) -> list[_Filled]:
        numbers = torch.arange(serials.start, serials.stop, serials.step)
        crops = [0.0] * len(serials)
        if self.index.longest > self.config.sequence_length:
            crops = uniform(self.config.seed, numbers, Stream.CROP, (1,))[:, 0].tolist()
        indices = times.frame_indices(self.config, numbers)
        captions = uniform(self.config.seed, numbers, Stream.CAPTION, (1,))[:, 0].tolist()
        each = zip(serials, crops, captions, indices, videos, strict=True)
        return [self._fill_one(*one) for one in each]

    def _fill_one(
        self,
        serial: int,
        crop: float,
        caption: float,
        indices: Int64[np.ndarray, " time"],
        video: ClipVideo,
    ) -> _Filled:
        """Read the clip of a serial; `crop` and `caption` in [0, 1) say which part and caption."""
        damage: list[Damage] = []
        length = int(indices[-1]) + 1
        transform = self.index.transform
        spare = length > len(video) or transform is not None or video.dtype != self.index.dtype
        read = np.empty((length, *video.shape[1:]), self.index.dtype) if spare else video
        for number in self.candidates(serial):
            try:
                entry = self.index.clips[number]
                first = _cut(crop, entry.num_frames, length)
                beside = self.index.read_into(number, first, read, caption)
                if spare:
                    missing = beside.mask if self.index.masked else None
                    _put(video, read, indices, transform, missing, first)
                ticks = self._checked(number, beside, first + indices, video)
            except DamagedClipError as error:
                last = error
                damage.append(Damage(serial, error.shard, error.key, error.reason))
                continue
            return _Filled(entry.key, beside.caption, beside.embedding, damage, ticks)
        if len(damage) == 1:
            raise last
        raise UserError(f"{len(damage)} clips in a row are damaged; the last: {last}") from last

    def _checked(
        self, number: int, beside: Beside, taken: Int64[np.ndarray, " time"], video: ClipVideo
    ) -> Int64[Tensor, " time"] | None:
        """Read the times of the frames `taken`, None where they are evenly apart.

        DamagedClipError where they cannot be, or values are infinite.
        """
        try:
            if video.dtype.kind == "f" and np.isinf(video).any():
                raise ValueError("it holds infinite values")
            return times.recorded(self.config, beside.meta, taken)
        except ValueError as error:
            raise self.index.damaged(number, str(error)) from error


def _put(
    video: ClipVideo,
    read: ClipVideo,
    places: Int64[np.ndarray, " time"],
    transform: Transform | None,
    mask: Mask | None,
    first: int,
) -> None:
    """Write the frames at `places` of `read`, whose first is `first` of its clip, as a batch's."""
    if transform is not None:
        video[:] = transform.apply(read[places])
    elif video.dtype == read.dtype:
        video[:] = read[places]
    else:
        video[:] = read[places] * np.float32(1 / 255)
    if mask is not None:
        np.copyto(video, np.nan, where=mask[first + places])


def _references(arrays: list[ClipVideo]) -> list[int]:
    """Count the references to each array, those of a tensor over it included."""
    counts = []
    for array in arrays:
        counts.append(sys.getrefcount(array))  # a loop, so that it counts the same for any list
    return counts


_UNHELD = _references([np.empty((0, 0, 0, 0), np.uint8)])[0]  # Python's versions count differently


__getattr__ = former_names(__name__, {"check": check_clips})
