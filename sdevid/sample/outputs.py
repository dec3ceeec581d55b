"""What `sample` leaves in its folder: mp4, GIF, npz and JSON a sample, two grids, the record."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import sdevid
from sdevid.clock import rational
from sdevid.errors import UserError
from sdevid.sample import write
from sdevid.sample.job import SamplingJob
from sdevid.sample.write import Pixels
from sdevid.types import frame_ticks

SHOWN = 16  # videos in a grid, at most
FRAMES_SHOWN = 16  # frames a row of the contact sheet, at most
SIDE = 96  # least side, in pixels, of what is made for the eye
RECORD = "samples.json"


def prepare(folder: Path) -> None:
    """Make the folder, and take away what an earlier `sample` lists in its record there."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / RECORD
        if not record.is_file():
            return
        try:
            entries = json.loads(record.read_text(encoding="utf-8"))["samples"]
            files = [Path(name).name for entry in entries for name in entry["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--output_dir {folder} holds a {RECORD} that sample did not write ({error!r}); "
                "give another folder"
            ) from error
        for name in files:
            (folder / name).unlink(missing_ok=True)
        record.unlink()


class Record(NamedTuple):
    """What is written about samples beside their videos."""

    job: SamplingJob
    provenance: dict[str, object]  # where model and frames come from

    def common(self) -> dict[str, object]:
        """What all samples have in common, ready for JSON."""
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
        """How one sample was made: the same, however many are."""
        common = self.common()
        del common["num_samples"]
        own = {"number": number, "serial": number, "prompt": self.job.prompt(number)}
        return own | {"files": names(number)} | common

    def whole(self, device: str) -> dict[str, object]:
        """How all samples were made."""
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
                    "files": names(number),
                }
                for number in range(job.total)
            ],
        }


def save(
    folder: Path, record: Record, numbers: Sequence[int], videos: Pixels, nats: Sequence[float]
) -> None:
    """Write the samples of these numbers, leaving out those past the job's total."""
    job, observed = record.job, record.job.observed
    ticks = frame_ticks(job.num_frames, rational(job.fps)).numpy()  # of a second
    indices = observed.indices if observed else ()
    for number, video, spent in zip(numbers, videos, nats, strict=True):
        if number < job.total:
            mp4, gif, npz, description = (folder / name for name in names(number))
            entry = record.sample(number) | {"guidance_nats": spent}
            with _writing(folder):
                write.mp4(mp4, video, job.fps)
                with _for_the_eye(gif.name):
                    write.gif(gif, write.enlarge(video, SIDE), job.fps)
                write.npz(npz, video, ticks, observed.leading if observed else 0, indices)
                description.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def finish(folder: Path, record: Record, device: str) -> None:
    """Write the grids of the first samples, and the record of how each sample was made."""
    fps, shown = record.job.fps, range(min(record.job.total, SHOWN))
    videos = np.stack([np.load(folder / names(number)[2])["video"] for number in shown])
    columns = int(np.ceil(np.sqrt(len(videos))))
    large = write.enlarge(videos, SIDE)
    with _writing(folder):
        with _for_the_eye("grid.gif"):
            write.gif(folder / "grid.gif", write.tile(large, columns), fps)
        with _for_the_eye("grid.png"):
            sheet = write.contact_sheet(large, FRAMES_SHOWN)
            write.picture(sheet).save(folder / "grid.png")
        (folder / RECORD).write_text(
            json.dumps(record.whole(device), indent=2) + "\n", encoding="utf-8"
        )


def names(number: int) -> tuple[str, str, str, str]:
    """The files of a sample: mp4, GIF, npz and JSON."""
    stem = f"sample_{number:05d}"
    return f"{stem}.mp4", f"{stem}.gif", f"{stem}.npz", f"{stem}.json"


@contextmanager
def _for_the_eye(name: str) -> Iterator[None]:
    """A picture that cannot be made is told in a line, once a kind, and costs nothing else."""
    try:
        yield
    except (ValueError, ArithmeticError, MemoryError, OSError) as error:
        kind = name.rpartition(".")[2] if name.startswith("sample") else name
        if kind not in _TOLD:
            _TOLD.add(kind)
            reason = f"{type(error).__name__}: {error}"
            print(f"{name} could not be made ({reason}); mp4 and npz hold it", file=sys.stderr)


_TOLD: set[str] = set()  # kinds of pictures that this process has spoken of


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot write there: {error}") from error
