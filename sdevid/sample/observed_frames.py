"""The frames that a video is conditioned on: initial ones, final ones, and key frames between."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.sample import array_frames, picture_files
from sdevid.sample.job import ObservedFrames, SamplingJob
from sdevid.sample.write import Frames


@dataclass(frozen=True)
class _Part:
    option: str
    pictures: picture_files.ObservedPictures
    indices: tuple[int, ...]


def read(args: argparse.Namespace, config: Config, job: SamplingJob) -> ObservedFrames | None:
    """Read the frames that `args` name, as the model takes them; None where they name none.

    A frame of which no value was observed is left out. Raises UserError where the model cannot take
    them, a file is at fault, frames differ in size, an index is outside the video or given twice,
    nothing was observed, or nothing is left to generate.
    """
    _check(args, config)
    most = config.observation.max_context

    def pictures_of(
        path: Path, count: int | None, most: int, option: str
    ) -> picture_files.ObservedPictures:
        if array_frames.takes(path, config):
            return array_frames.read(path, count, most, config, job.fps, option, args.missing)
        shape = config.frame_shape, config.channels, job.fps
        return picture_files.read(path, count, most, *shape, option)

    parts = []
    if args.initial_frames is not None:
        count = args.num_initial_frames
        pictures = pictures_of(args.initial_frames, count, most, "--initial_frames")
        parts.append(_Part("--initial_frames", pictures, tuple(range(len(pictures.frames)))))
    if args.final_frames is not None:
        pictures = pictures_of(args.final_frames, None, most, "--final_frames")
        first = job.num_frames - len(pictures.frames)
        parts.append(_Part("--final_frames", pictures, tuple(range(first, job.num_frames))))
    for index, path in map(_keyframe, args.keyframes):
        pictures = pictures_of(path, 1, 1, "--keyframes")
        parts.append(_Part("--keyframes", pictures, (index,)))
    return _joined(parts, config, job) if parts else None


def from_arrays(
    frames: Frames, indices: tuple[int, ...], config: Config, job: SamplingJob
) -> ObservedFrames:
    """Check frames at hand as those of files are."""
    pictures = picture_files.ObservedPictures(frames, (), "")
    return _joined([_Part("frames", pictures, indices)], config, job)


def _check(args: argparse.Namespace, config: Config) -> None:
    """Raise UserError where the model was not trained for what `args` give it."""
    count, settings = args.num_initial_frames, config.observation
    if args.initial_frames is None and count is not None:
        raise UserError("--num_initial_frames is given without --initial_frames; add that too")
    if args.initial_frames is not None and settings.max_context == 0:
        raise UserError(
            "--initial_frames is given, but this model was trained to take none "
            "(observation.max_context is 0 in its config)"
        )
    if count is not None and not 1 <= count <= settings.max_context:
        raise UserError(
            f"--num_initial_frames is {count}, but the model takes 1 to {settings.max_context} "
            "(observation.max_context in its config)"
        )
    for option, value, setting in (
        ("--final_frames", args.final_frames is not None, "ends_fraction"),
        ("--keyframes", bool(args.keyframes), "keyframes_fraction"),
    ):
        if value and getattr(settings, setting) == 0:
            raise UserError(
                f"{option} is given, but this model was not trained to fill in between frames "
                f"(observation.{setting} is 0 in its config)"
            )


def _keyframe(text: str) -> tuple[int, Path]:
    index, colon, path = text.partition(":")
    if not colon or not path or not index.isdecimal():
        raise UserError(
            f"--keyframes {text!r} must read INDEX:PATH, e.g. 0:first.png, with frames counted "
            "from 0"
        )
    return int(index), Path(path)


def _joined(parts: list[_Part], config: Config, job: SamplingJob) -> ObservedFrames:
    number, taken = job.num_frames, dict[int, Frames]()
    for part in parts:
        if part.pictures.size != parts[0].pictures.size:
            raise UserError(
                f"{parts[0].option} are of {parts[0].pictures.size} pixels and {part.option} of "
                f"{part.pictures.size}; give frames of one size"
            )
        for frame, at in zip(part.pictures.frames, part.indices, strict=True):
            if not 0 <= at < number:
                raise UserError(
                    f"{part.option} gives a frame at {at}, but --num_frames is {number}: indices "
                    f"are 0 to {number - 1}; give a larger --num_frames or another index"
                )
            if at in taken:
                raise UserError(
                    f"frame {at} is given twice, the second time by {part.option}; leave one out"
                )
            taken[at] = frame
    indices = tuple(at for at in sorted(taken) if not _is_missing(taken[at]))
    if not indices:
        raise UserError(
            f"{' and '.join(dict.fromkeys(part.option for part in parts))} hold {len(taken)} "
            "frame(s), but no value of any was observed (all are NaN or --missing); give a frame "
            "of which some were"
        )
    leading = next((k for k, at in enumerate(indices) if at != k), len(indices))
    if not config.observation.ahead:
        leading = indices[-1] + 1  # what lies between them is not the model's to fill
    if leading + sum(at >= leading for at in indices) == number:
        raise UserError(
            f"--num_frames is {number}, but all of them are given frames (initial, final or key) "
            "and at least one must be generated; give a larger --num_frames"
        )
    notes = dict.fromkeys(note for part in parts for note in part.pictures.notes)
    for at in sorted(taken.keys() - set(indices)):
        becomes = "stays empty" if at < leading else "is generated"
        notes[f"frame {at} is not observed: the model is not shown it, and it {becomes}"] = None
    return ObservedFrames(np.stack([taken[at] for at in indices]), indices, leading, tuple(notes))


def _is_missing(frame: Frames) -> bool:
    return frame.dtype.kind == "f" and bool(np.isnan(frame).all())
