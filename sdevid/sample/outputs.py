"""What `sample` leaves in its folder: a mp4, GIF and npz a sample, two grids, and the record."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import sdevid
from sdevid.errors import UserError
from sdevid.sample import write
from sdevid.sample.initial import Initial
from sdevid.sample.request import Request
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
            entries = json.loads(record.read_text())["samples"]
            files = [Path(name).name for entry in entries for name in entry["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"--output_dir {folder} holds a {RECORD} that sample did not write ({error!r}); "
                "give another folder"
            ) from error
        for name in files:
            (folder / name).unlink(missing_ok=True)
        record.unlink()


def save(
    folder: Path, request: Request, numbers: Sequence[int], videos: Pixels, given: Initial | None
) -> None:
    """Write the samples of these numbers, leaving out those past `request.num_samples`."""
    ticks = frame_ticks(request.num_frames, request.fps).numpy()
    known = len(given.frames) if given else 0
    for number, video in zip(numbers, videos, strict=True):
        if number < request.num_samples:
            mp4, gif, npz = (folder / name for name in names(number))
            with _writing(folder):
                write.mp4(mp4, video, request.fps)
                write.gif(gif, write.enlarge(video, SIDE), request.fps)
                write.npz(npz, video, ticks, known)


def finish(args: argparse.Namespace, request: Request, given: Initial | None, device: str) -> None:
    """Write the grids of the first samples, and the record of how each sample was made."""
    folder: Path = args.output_dir
    shown = range(min(request.num_samples, SHOWN))
    videos = np.stack([np.load(folder / names(number)[2])["video"] for number in shown])
    columns = int(np.ceil(np.sqrt(len(videos))))
    large = write.enlarge(videos, SIDE)
    with _writing(folder):
        write.gif(folder / "grid.gif", write.tile(large, columns), request.fps)
        sheet = write.contact_sheet(large, FRAMES_SHOWN)
        write.picture(sheet).save(folder / "grid.png")
        record = json.dumps(_record(args, request, given, device), indent=2)
        (folder / RECORD).write_text(record + "\n")


def names(number: int) -> tuple[str, str, str]:
    """The files of a sample: mp4, GIF and npz."""
    stem = f"sample_{number:05d}"
    return f"{stem}.mp4", f"{stem}.gif", f"{stem}.npz"


def _record(
    args: argparse.Namespace, request: Request, given: Initial | None, device: str
) -> dict[str, object]:
    return {
        "model_path": str(args.model_path),
        "weights": args.weights,
        **asdict(request),
        "initial_frames": str(args.initial_frames) if given else None,
        "num_initial_frames": len(given.frames) if given else 0,
        "notes": list(given.notes) if given else [],
        "device": device,
        "versions": {
            "sdevid": sdevid.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "samples": [
            {"number": number, "serial": number, "seed": request.seed, "files": names(number)}
            for number in range(request.num_samples)
        ],
    }


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot write there: {error}") from error
