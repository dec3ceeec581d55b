"""What `sample` leaves in its folder: mp4, GIF, npz and JSON a sample, two grids, the record."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import sdevid
from sdevid.errors import UserError
from sdevid.sample import write
from sdevid.sample.conditions import Observed
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


class Generated(NamedTuple):
    """Samples, and what guidance spent on each."""

    videos: Pixels  # number, time, height, width, channels
    nats: list[float]


def save(
    args: argparse.Namespace,
    request: Request,
    numbers: Sequence[int],
    made: Generated,
    given: Observed | None,
) -> None:
    """Write the samples of these numbers, leaving out those past `request.total`."""
    ticks = frame_ticks(request.num_frames, request.fps).numpy()
    places = given.places if given else ()
    folder: Path = args.output_dir
    for number, video, nats in zip(numbers, made.videos, made.nats, strict=True):
        if number < request.total:
            mp4, gif, npz, told = (folder / name for name in names(number))
            record = _sample(args, request, number, given) | {"guidance_nats": nats}
            with _writing(folder):
                write.mp4(mp4, video, request.fps)
                write.gif(gif, write.enlarge(video, SIDE), request.fps)
                write.npz(npz, video, ticks, given.leading if given else 0, places)
                told.write_text(json.dumps(record, indent=2) + "\n")


def finish(args: argparse.Namespace, request: Request, given: Observed | None, device: str) -> None:
    """Write the grids of the first samples, and the record of how each sample was made."""
    folder: Path = args.output_dir
    shown = range(min(request.total, SHOWN))
    videos = np.stack([np.load(folder / names(number)[2])["video"] for number in shown])
    columns = int(np.ceil(np.sqrt(len(videos))))
    large = write.enlarge(videos, SIDE)
    with _writing(folder):
        write.gif(folder / "grid.gif", write.tile(large, columns), request.fps)
        sheet = write.contact_sheet(large, FRAMES_SHOWN)
        write.picture(sheet).save(folder / "grid.png")
        record = json.dumps(_record(args, request, given, device), indent=2)
        (folder / RECORD).write_text(record + "\n")


def names(number: int) -> tuple[str, str, str, str]:
    """The files of a sample: mp4, GIF, npz and JSON."""
    stem = f"sample_{number:05d}"
    return f"{stem}.mp4", f"{stem}.gif", f"{stem}.npz", f"{stem}.json"


def _how(args: argparse.Namespace, request: Request, given: Observed | None) -> dict[str, object]:
    """What all samples have in common."""
    settings = asdict(request)
    del settings["prompts"]
    return {
        "model_path": str(args.model_path),
        "weights": args.weights,
        **settings,
        "initial_frames": str(args.initial_frames) if args.initial_frames else None,
        "num_initial_frames": given.leading if given else 0,
        "final_frames": str(args.final_frames) if args.final_frames else None,
        "keyframes": list(args.keyframes),
        "observed_places": list(given.places) if given else [],
        "notes": list(given.notes) if given else [],
        "versions": {
            "sdevid": sdevid.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _sample(
    args: argparse.Namespace, request: Request, number: int, given: Observed | None
) -> dict[str, object]:
    """How one sample was made."""
    common = _how(args, request, given)
    del common["num_samples"]  # the same sample, however many are made
    own = {"number": number, "serial": number, "prompt": request.prompt(number)}
    return own | {"files": names(number)} | common


def _record(
    args: argparse.Namespace, request: Request, given: Observed | None, device: str
) -> dict[str, object]:
    return {
        **_how(args, request, given),
        "prompts": list(request.prompts),
        "device": device,
        "samples": [
            {
                "number": number,
                "serial": number,
                "seed": request.seed,
                "prompt": request.prompt(number),
                "files": names(number),
            }
            for number in range(request.total)
        ],
    }


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot write there: {error}") from error
