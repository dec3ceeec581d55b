"""Training on WebDataset tars without an index: a stream, whose order is not exact.

The tars of an epoch are dealt to lanes, one or more a rank, each of which reads its own one after
the other through webdataset's pipeline and shuffles within a buffer. A lane begins its next epoch
when its tars end, so that no rank ever waits for one that has more. Where tars hold different
numbers of clips, a lane with fewer comes round sooner.

webdataset groups and shuffles alone. Tars are opened as any folder of shards is, and what is in
them is decoded here, under the same limits as an indexed clip.
"""

from __future__ import annotations

import io
import os
import random
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any, NamedTuple

import torch

from sdevid.config import Config
from sdevid.data import times
from sdevid.data.entry import Kind
from sdevid.data.folder import Access, Folder, FolderFile
from sdevid.data.open import open_folder
from sdevid.data.payload import ClipVideo
from sdevid.data.spec import BadVideoError, LeftOutError, words
from sdevid.data.stream import micro_batch_size, misfit
from sdevid.data.tar_sample import FAULT, decode_sample
from sdevid.errors import UserError
from sdevid.sde.noise import Stream, uniform
from sdevid.types import Batch, Damage

_BUFFER = 256  # samples of a lane that are shuffled among themselves
_LOOKED_AT = 8  # samples at the start
_AHEAD = 8  # clips that a lane decodes in advance
_MOST_IN_A_ROW = 1_000  # damaged samples, before the data is given up
_READ_AT_ONCE = 2**23  # bytes
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd

Place = tuple[int, int, int]  # epoch, the tar's number among the lane's, the sample's in the tar


class _Clip(NamedTuple):
    """A decoded sample, or why there is none."""

    place: Place
    tar: str
    key: str
    video: ClipVideo | None
    meta: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class TarStream:
    """The tars that a run is trained on, in the order of their names or of their list."""

    location: str
    tars: list[tuple[Folder, str]]
    config: Config
    dataset: dict[str, Any] = field(default_factory=dict)  # empty: nothing is said of the whole

    def __len__(self) -> int:
        """Return the clips of the run, `max_clips`: how many the tars hold is not known."""
        assert self.config.max_clips is not None  # or it is not opened
        return self.config.max_clips

    @property
    def names(self) -> list[str]:
        """Names of the tars, without their folders."""
        return [name for _, name in self.tars]

    def lanes(self, world_size: int) -> int:
        """Compute the lanes of a rank: `data_workers`, or fewer where tars are few; at least 1."""
        return max(1, min(self.config.data_workers, len(self.tars) // world_size))

    def summary(self, world_size: int) -> str:
        """Describe the stream in a line, for the start of the run."""
        return (
            f"data_reader webdataset: {len(self.tars)} tars in {world_size} x "
            f"{self.lanes(world_size)} streams, without an index: the order of clips is not "
            "exact, and another number of ranks or workers has another; an npy whose json states "
            f"no fps counts as {self.config.fps:g} a second"
        )


def open_tars(config: Config, world_size: int) -> TarStream:
    """Open the tars that `config.data` names.

    Raises UserError where there are fewer than ranks, where `max_clips` is not given, and where
    none of the first samples fits the config.
    """
    if config.max_clips is None:
        raise UserError(
            "data_reader is webdataset, but max_clips is not set, and without an index nobody "
            "knows how many clips there are; set max_clips, or write an index by sdevid shards "
            f"index {config.data}"
        )
    access = Access.of(config)
    places = _listed(config, access)
    if len(places) < world_size:
        raise UserError(
            f"data {config.data} has {len(places)} tars, but each of {world_size} ranks needs one "
            "of its own; use fewer ranks, write smaller tars, or an index by sdevid shards index"
        )
    folders = {place: open_folder(place, access) for place in dict.fromkeys(p for p, _ in places)}
    tars = [(folders[place], name) for place, name in places]
    stream = TarStream(config.data, tars, config)
    _check_first(stream)
    return stream


def _listed(config: Config, access: Access) -> list[tuple[str, str]]:
    """List folder and name of each tar.

    UserError where there is an index (its splits and masks would be lost), or split is not train.
    """
    if not config.data.endswith(".tar"):
        names = open_folder(config.data, access).names() or []
        if "dataset.json" in names:
            raise UserError(
                f"data_reader is webdataset, but {config.data} has an index (dataset.json), which "
                "says of splits, transforms and masks what tars alone do not; leave out data_reader"
            )
    from sdevid.data.cut.tars import find_tars  # not at the top: it imports av

    if config.split != "train":
        raise UserError(
            f"split is {config.split!r}, but tars without an index have none: all are trained on; "
            "leave split out, and name the tars of one split in data, as a/{000..099}.tar"
        )
    return find_tars(config.data)


def _check_first(stream: TarStream) -> None:
    """Raise UserError where none of the first samples that decode fits."""
    lane = _Lane(stream, 0, 1, {}, shuffled=False)
    faults: list[str] = []
    for _ in range(_LOOKED_AT):
        clip = lane.take(fitting=False)
        assert clip.video is not None
        fault = misfit(_kind(clip.video, clip.meta["fps"]), stream.config)
        if fault is None:
            return
        where = f"the tars {stream.location} hold"
        faults.append(fault.format(where=where, key=f"(sample {clip.key} of {clip.tar})"))
    raise UserError(faults[0])


class TarReader:
    """One rank's batches of a stream of tars, carried on from the cursors of a checkpoint."""

    def __init__(
        self, stream: TarStream, rank: int, world_size: int, cursors: list[dict[str, Any]]
    ) -> None:
        each = stream.lanes(world_size)
        lanes = each * world_size
        self.restarted = bool(cursors) and len(cursors) != lanes
        if self.restarted:  # places of other lanes say nothing of these
            cursors = lanes * [{"epoch": 1 + max(cursor["epoch"] for cursor in cursors)}]
        own = range(rank * each, (rank + 1) * each)
        self._lanes = [_Lane(stream, n, lanes, cursors[n] if cursors else {}) for n in own]
        self._turns = cycle(self._lanes)
        self._config = stream.config
        self._rank, self._world_size = rank, world_size

    def cursors(self) -> list[dict[str, Any]]:
        """Return the cursor of each lane of this rank, by the batches that were handed out."""
        return [lane.cursor() for lane in self._lanes]

    def steps(self, start: int) -> Iterator[list[Batch]]:
        """Yield this rank's micro-batches of one optimizer step after the other, without end.

        `start` is the number of clips consumed, over all ranks.
        """
        micro = micro_batch_size(self._config, self._world_size)
        share = self._config.batch_size // self._world_size
        with ExitStack() as threads:
            if self._config.data_workers:
                for lane in self._lanes:
                    threads.enter_context(lane.ahead())
            for first in count(start + self._rank * share, self._config.batch_size):
                parts = range(first, first + share, micro)
                yield [self._batch(range(part, part + micro)) for part in parts]

    def _batch(self, serials: range) -> Batch:
        config, numbers = self._config, torch.arange(serials.start, serials.stop)
        crops = uniform(config.seed, numbers, Stream.CROP, (1,))[:, 0].tolist()
        draws = uniform(config.seed, numbers, Stream.CAPTION, (1,))[:, 0].tolist()
        indices = times.frame_indices(config, numbers)
        shape = len(serials), config.sequence_length, *config.frame_shape, config.channels
        pinned = torch.cuda.is_available()
        video = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        ticks = times.ticks(config, indices)
        keys, captions, damage = [], [], []
        for row, serial in enumerate(serials):
            lane = next(self._turns)
            clip = lane.take()
            damage += [Damage(serial, d.tar, d.key, d.fault) for d in lane.left_out()]
            assert clip.video is not None
            first = int(crops[row] * (len(clip.video) - int(indices[row, -1])))
            taken = first + indices[row]
            video[row] = torch.from_numpy(clip.video[taken])
            if (instants := times.recorded(config, clip.meta, taken)) is not None:
                ticks[row] = instants
            keys.append(clip.key)
            captions.append(words(clip.meta, draws[row]))
        if pinned:
            ticks, numbers = ticks.pin_memory(), numbers.pin_memory()
        return Batch(video, ticks, numbers, tuple(keys), tuple(captions), tuple(damage))


class _Lane:
    """The clips of every n-th tar, epoch after epoch.

    What was read and not yet taken, in the buffer or ahead, is pending: a cursor names it, so that
    a stream that is carried on shows each sample of its epoch once.
    """

    def __init__(
        self,
        stream: TarStream,
        number: int,
        lanes: int,
        cursor: dict[str, Any],
        *,
        shuffled: bool = True,
    ) -> None:
        self._stream, self._number, self._lanes = stream, number, lanes
        self._config, self._shuffled = stream.config, shuffled
        self._lock = threading.Lock()
        self._next: Place = cursor.get("epoch", 0), cursor.get("tar", 0), cursor.get("sample", 0)
        self._pending: set[Place] = {(p[0], p[1], p[2]) for p in cursor.get("pending", [])}
        self._left_out: list[_Clip] = []
        self._clips = self._read()
        self._thread: ThreadPoolExecutor | None = None
        self._futures: deque[Future[_Clip]] = deque()

    def cursor(self) -> dict[str, Any]:
        """Return where it reads on, and what it has read that was not taken."""
        with self._lock:
            epoch, tar, sample = self._next
            pending = sorted(self._pending)
        return {"epoch": epoch, "tar": tar, "sample": sample, "pending": [*map(list, pending)]}

    def ahead(self) -> ExitStack:
        """Decode in a thread of its own until the returned context is left."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        stack = ExitStack()
        stack.callback(self._thread.shutdown, cancel_futures=True)
        return stack

    def take(self, *, fitting: bool = True) -> _Clip:
        """Return the next clip that is whole, and that fits the config if it must.

        UserError where too many in a row are not.
        """
        for _ in range(_MOST_IN_A_ROW):
            clip = self._one()
            with self._lock:
                self._pending.discard(clip.place)
            if clip.video is not None and fitting:
                clip = _fitted(clip, self._config)
            if clip.video is not None:
                return clip
            self._left_out.append(clip)
        raise UserError(
            f"{_MOST_IN_A_ROW} samples in a row of {self._stream.location} cannot be trained on; "
            f"the last: {clip.key} of {clip.tar} {clip.fault}"
        )

    def left_out(self) -> list[_Clip]:
        """Return the samples passed over since the last call, and forget them."""
        clips, self._left_out = self._left_out, []
        return clips

    def _one(self) -> _Clip:
        if self._thread is None:
            return next(self._clips)
        while len(self._futures) < _AHEAD:
            self._futures.append(self._thread.submit(next, self._clips))
        return self._futures.popleft().result()

    def _read(self) -> Iterator[_Clip]:
        """Yield the clips of all epochs, shuffled within each."""
        wds, started = _webdataset(), self._next
        earlier = min((place[0] for place in self._pending), default=started[0])
        resumed = frozenset(self._pending)
        for epoch in count(earlier):
            clips = 0
            seed = f"{self._config.seed} {epoch} {self._number}"
            mix = wds.shuffle(_BUFFER, initial=_BUFFER, rng=random.Random(seed))
            stages = [lambda e=epoch: self._samples(e, started, resumed)]
            stages += [mix] if self._shuffled else []
            for sample in wds.DataPipeline(*stages):
                clips += 1
                yield self._decoded(sample)
            if not clips and epoch > started[0]:
                tars = ", ".join(name for _, name in self._tars(epoch)[:3])
                raise UserError(f"the tars {tars} of {self._stream.location} hold no sample")

    def _tars(self, epoch: int) -> list[tuple[Folder, str]]:
        tars = list(self._stream.tars)
        if self._shuffled:
            random.Random(f"{self._config.seed} {epoch}").shuffle(tars)
        return tars[self._number :: self._lanes]

    def _samples(
        self, epoch: int, started: Place, resumed: frozenset[Place]
    ) -> Iterator[dict[str, Any]]:
        """Yield the raw samples of an epoch still to be taken, as webdataset groups them."""
        tars = self._tars(epoch)
        for number, tar in enumerate(tars):
            wanted = {place for place in resumed if place[:2] == (epoch, number)}
            if (epoch, number) < started[:2] and not wanted:
                continue
            for nth, sample in enumerate(_grouped(*tar)):
                place = epoch, number, nth
                if place < started and place not in wanted:
                    continue
                if place >= started:
                    with self._lock:
                        self._pending.add(place)
                        self._next = epoch, number, nth + 1
                yield sample | {"__place__": place}
        with self._lock:
            self._next = max(self._next, (epoch + 1, 0, 0))

    def _decoded(self, sample: dict[str, Any]) -> _Clip:
        import av

        place, tar, key = sample["__place__"], sample["__url__"], sample["__key__"]
        try:
            video, meta = decode_sample(sample, self._config)
            times.recorded(self._config, meta, torch.arange(len(video)).numpy())
        except (ValueError, BadVideoError, LeftOutError, av.FFmpegError) as error:
            return _Clip(place, tar, key, None, {}, str(error).splitlines()[0])
        return _Clip(place, tar, key, video, meta)


def _webdataset() -> Any:
    """Import webdataset such that it opens no pipe and unpickles nothing, whoever uses it."""
    before = os.environ.get("WDS_SECURE")
    os.environ["WDS_SECURE"] = "1"
    try:
        import webdataset
    finally:
        if before is None:
            del os.environ["WDS_SECURE"]
        else:
            os.environ["WDS_SECURE"] = before
    return webdataset


def _grouped(folder: Folder, tar: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar by webdataset; where the tar is cut off, the fault last."""
    read, faults = _webdataset().tariterators, []

    def note(error: Exception) -> bool:
        if isinstance(error, OSError | UserError):
            raise error
        faults.append(str(error.args[0]).split(" @ <")[0])
        return True

    try:
        raw = FolderFile(folder, tar)
    except FileNotFoundError as error:
        raise UserError(f"{folder.location}/{tar} is not there; mend the list in data") from error
    with io.BufferedReader(raw, _READ_AT_ONCE) as stream:
        if stream.peek(8).startswith(_COMPRESSED):
            yield {"__key__": "(all)", "__url__": tar, FAULT: "the tar is compressed"}
            return
        files = read.tar_file_expander([{"url": tar, "stream": stream}], handler=note)
        yield from read.group_by_keys(files, handler=note)
    for fault in faults:
        reason = f"the tar does not read to its end: {fault}"
        yield {"__key__": "(the rest)", "__url__": tar, FAULT: reason}


def _kind(video: ClipVideo, fps: float) -> Kind:
    frames, height, width, channels = video.shape
    return Kind(frames, fps, height, width, channels)


def _fitted(clip: _Clip, config: Config) -> _Clip:
    """Return the clip, without its video where its size, length or rate does not fit."""
    assert clip.video is not None
    fault = misfit(_kind(clip.video, clip.meta["fps"]), config)
    if fault is None:
        return clip
    reason = fault.format(where="it has", key="").split(";")[0].strip()
    return clip._replace(video=None, fault=f"does not fit: {reason}")
