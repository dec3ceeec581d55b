"""What `sample` is asked for: its arguments, checked and completed from the model's config."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.types import TICKS_PER_SECOND


@dataclass(frozen=True)
class Request:
    """What to generate."""

    num_samples: int
    num_frames: int  # of a written video, the initial ones among them
    fps: float  # frames a second
    seed: int
    temperature: float
    steps_per_frame: int | None
    batch_size: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sample`."""
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--output_dir", type=Path, required=True, help="folder for the videos")
    add("--num_samples", type=int, default=5, help="videos to make (default: 5)")
    add("--seed", type=int, default=0, help="the same seed gives the same videos (default: 0)")
    add("--initial_frames", type=Path, help="a video, a folder of pictures, or one picture")
    add("--num_initial_frames", type=int, help="how many of them (default: all the model takes)")
    add("--num_frames", type=int, help="frames a video, initial ones included (default: training)")
    add("--fps", type=float, help="frames a second (default: that of training)")
    add("--temperature", type=float, default=1.0, help="scales the noise of the motion; 0: none")
    add("--steps_per_frame", type=int, help="solver steps between frames (default: training)")
    add("--weights", choices=("ema", "raw"), default="ema", help="averaged or last weights")
    add("--batch_size", type=int, help="videos made at once (default: 1 on a CPU, 8 on a GPU)")


def check(args: argparse.Namespace, config: Config, batch_size: int) -> Request:
    """`args` as a request, gaps filled from the training. Raises UserError naming the setting."""
    request = Request(
        num_samples=args.num_samples,
        num_frames=config.sequence_length if args.num_frames is None else args.num_frames,
        fps=config.fps if args.fps is None else args.fps,
        seed=args.seed,
        temperature=args.temperature,
        steps_per_frame=args.steps_per_frame,
        batch_size=batch_size if args.batch_size is None else args.batch_size,
    )
    for name in ("num_samples", "num_frames", "batch_size", "steps_per_frame"):
        count = getattr(request, name)
        if count is not None and count < 1:
            raise UserError(f"--{name} is {count}, but must be 1 or more")
    if not 0 <= request.seed < 2**63:
        raise UserError(f"--seed is {request.seed}, but must be from 0 to 2**63 - 1")
    if not 0 <= request.temperature < float("inf"):
        raise UserError(
            f"--temperature is {request.temperature}, but must be 0 or more; 1 is usual"
        )
    steps = request.steps_per_frame or 1
    if not 0 < request.fps <= TICKS_PER_SECOND / steps:
        raise UserError(
            f"--fps is {request.fps}, but must be above 0 and at most {TICKS_PER_SECOND // steps} "
            f"with {steps} solver steps a frame; the model was trained at {config.fps}"
        )
    return request


def check_initial(args: argparse.Namespace, config: Config) -> None:
    """Raises UserError where the model cannot take the initial frames that `args` speak of."""
    count, most = args.num_initial_frames, config.observation.max_context
    if args.initial_frames is None:
        if count is not None:
            raise UserError("--num_initial_frames is given without --initial_frames; add that too")
        return
    if most == 0:
        raise UserError(
            "--initial_frames is given, but this model was trained to take none "
            "(observation.max_context is 0 in its config)"
        )
    if count is not None and not 1 <= count <= most:
        raise UserError(
            f"--num_initial_frames is {count}, but the model takes 1 to {most} "
            "(observation.max_context in its config)"
        )
