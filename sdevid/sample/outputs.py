"""What `sample` leaves in its folder: the asked files of each sample, grids, and the record."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import sdevid
from sdevid.clock import rational
from sdevid.config import SourceConfig
from sdevid.data import source_units
from sdevid.data.source_units import SourceUnits
from sdevid.errors import UserError
from sdevid.sample import array_files, write
from sdevid.sample.formats import FORMATS
from sdevid.sample.job import SamplingJob
from sdevid.sample.write import Frames
from sdevid.types import TICKS_PER_UNIT, frame_ticks

SHOWN = 16  # videos in a grid, at most
FRAMES_SHOWN = 16  # frames a row of the contact sheet, at most
SIDE = 96  # least side, in pixels, of what is made for the eye
RECORD = "samples.json"
_PARTS = ".parts"  # frames that processes leave for what is made of all samples
_SHARED = ("grid.gif", "grid.png", "samples.zarr", "samples.nc", _PARTS)


def prepare(folder: Path) -> None:
    """Make the folder, and remove the files that an earlier `sample` recorded there."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / RECORD
        if not record.is_file():
            return
        try:
            entries = json.loads(record.read_text(encoding="utf-8"))["samples"]
            files = [Path(name).name for entry in entries for name in entry["files"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"--output_dir {folder} holds a {RECORD} that sample did not write ({error!r}); "
                "give another folder"
            ) from error
        for name in (*files, *_SHARED):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (folder / name).unlink(missing_ok=True)
        record.unlink()


class SampleRecord(NamedTuple):
    """The record of a job: what is written about samples beside their videos."""

    job: SamplingJob
    provenance: dict[str, object]  # where model and frames come from
    source: SourceConfig = SourceConfig()  # what the model's values stand for

    @property
    def values(self) -> SourceUnits:
        """Converts frames to values of the source."""
        return source_units.of_config(self.source)

    def common(self) -> dict[str, object]:
        """Describe what all samples have in common, ready for JSON."""
        job, observed = self.job, self.job.observed
        sampler = job.sampler._asdict()
        del sampler["serial"]  # each sample's own
        return {
            "num_samples": job.num_samples,
            "num_frames": job.num_frames,
            "fps": job.fps,
            "batch_size": job.batch_size,
            **sampler,
            "negative_prompt": job.negative_prompt,
            **self.provenance,
            "unit": self.values.unit,
            "num_initial_frames": observed.leading if observed else 0,
            "observed_places": list(observed.indices) if observed else [],
            "notes": list(observed.notes) if observed else [],
            "versions": {
                "sdevid": sdevid.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    def sample(self, number: int) -> dict[str, object]:
        """Describe how one sample was made; the number of samples makes no difference."""
        common = self.common()
        del common["num_samples"]
        own = {"number": number, "serial": number, "prompt": self.job.prompt(number)}
        return own | {"files": names(number, self.job.formats)} | common

    def whole(self, device: str) -> dict[str, object]:
        """Describe how all samples were made."""
        job = self.job
        return {
            **self.common(),
            "prompts": list(job.prompts),
            "device": device,
            "samples": [
                {
                    "number": number,
                    "serial": number,
                    "seed": job.sampler.seed,
                    "prompt": job.prompt(number),
                    "files": names(number, job.formats),
                }
                for number in range(job.total)
            ],
        }


def save(
    folder: Path,
    record: SampleRecord,
    numbers: Sequence[int],
    videos: Frames,
    nats: Sequence[float],
) -> None:
    """Write the samples of these numbers, leaving out those past the job's total."""
    for number, video, spent in zip(numbers, videos, nats, strict=True):
        if number < record.job.total:
            entry = record.sample(number) | {"guidance_nats": spent}
            with _writing(folder):
                _save_video(folder, record, number, video)
                description = folder / f"{_stem(number)}.json"
                description.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def _save_video(folder: Path, record: SampleRecord, number: int, video: Frames) -> None:
    job, observed, path = record.job, record.job.observed, folder / _stem(number)
    shown = write.for_the_eye(write.as_uint8(video), job.colormap)
    values = _of_source(record, video)
    if "mp4" in job.formats:
        write.mp4(path.with_suffix(".mp4"), shown, job.fps)
    if "gif" in job.formats:
        with _for_the_eye(f"{path.name}.gif"):
            write.gif(path.with_suffix(".gif"), write.enlarge(shown, SIDE), job.fps)
    if "npz" in job.formats:
        ticks = frame_ticks(job.num_frames, rational(job.fps)).numpy()  # of a second
        leading, indices = (observed.leading, observed.indices) if observed else (0, ())
        write.npz(path.with_suffix(".npz"), values, ticks, leading, indices)
    if "npy" in job.formats:
        array_files.npy(path.with_suffix(".npy"), values)
    if "tiff" in job.formats:
        array_files.tiff(path.with_suffix(".tif"), values, job.fps, record.values.unit)
    (folder / _PARTS).mkdir(exist_ok=True)
    if number < SHOWN:
        array_files.npy(folder / _PARTS / f"{number}.shown.npy", shown)
    if any(FORMATS[name].shared for name in job.formats):
        array_files.npy(folder / _PARTS / f"{number}.values.npy", values)


def _of_source(record: SampleRecord, video: Frames) -> array_files.Values:
    """Convert a sample to the source's units, and to its type where that is of whole numbers."""
    if video.dtype == np.uint8 and record.source.transform == "none":
        return video
    values = record.values.values(video)
    dtype = np.dtype(record.source.dtype)
    if dtype.kind != "u":
        return values
    most = np.iinfo(dtype).max
    return np.nan_to_num(values).round().clip(0, most).astype(dtype)


def finish(folder: Path, record: SampleRecord, device: str) -> None:
    """Write what is made of all samples: the grids, Zarr and NetCDF, and the record."""
    job = record.job
    shown = range(min(job.total, SHOWN))
    parts = folder / _PARTS
    videos = np.stack([np.load(parts / f"{number}.shown.npy") for number in shown])
    columns = int(np.ceil(np.sqrt(len(videos))))
    large = write.enlarge(videos, SIDE)
    with _writing(folder):
        if "gif" in job.formats:
            with _for_the_eye("grid.gif"):
                write.gif(folder / "grid.gif", write.tile(large, columns), job.fps)
        with _for_the_eye("grid.png"):
            sheet = write.contact_sheet(large, FRAMES_SHOWN)
            write.picture(sheet).save(folder / "grid.png")
        values = [parts / f"{number}.values.npy" for number in range(job.total)]
        if "zarr" in job.formats:
            array_files.zarr(folder / "samples.zarr", _layout(record), map(np.load, values))
        if "netcdf" in job.formats:
            array_files.netcdf(folder / "samples.nc", _layout(record), map(np.load, values))
        shutil.rmtree(parts)
        (folder / RECORD).write_text(
            json.dumps(record.whole(device), indent=2) + "\n", encoding="utf-8"
        )


def _layout(record: SampleRecord) -> array_files.ArrayLayout:
    job = record.job
    leading = {"sample": job.total}
    if job.futures:
        leading = {"sample": max(1, len(job.prompts)), "ensemble_member": job.num_samples}
    seconds = frame_ticks(job.num_frames, rational(job.fps)).numpy() / TICKS_PER_UNIT
    about = {"source": f"sdevid {sdevid.__version__}", "frames_per_second": str(rational(job.fps))}
    return array_files.ArrayLayout(
        leading, seconds, record.source.channel_names, record.values.unit, about
    )


def names(number: int, formats: Sequence[str]) -> tuple[str, ...]:
    """Name the files of a sample: those of `formats`, and its JSON."""
    own = [FORMATS[name].ending for name in formats if not FORMATS[name].shared]
    return tuple(f"{_stem(number)}.{ending}" for ending in (*own, "json"))


def _stem(number: int) -> str:
    return f"sample_{number:05d}"


@contextmanager
def _for_the_eye(name: str) -> Iterator[None]:
    """Report a picture that cannot be made in a line, once a kind; the rest goes on."""
    try:
        yield
    except (ValueError, ArithmeticError, MemoryError, OSError) as error:
        kind = name.rpartition(".")[2] if name.startswith("sample") else name
        if kind not in _TOLD:
            _TOLD.add(kind)
            reason = f"{type(error).__name__}: {error}"
            print(f"{name} could not be made ({reason}); other formats hold it", file=sys.stderr)


_TOLD: set[str] = set()  # kinds of pictures that this process has spoken of


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot write there: {error}") from error
