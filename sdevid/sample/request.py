"""What `sample` is asked for: its arguments, checked and completed from the model's config."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.registry import takers_of
from sdevid.sde.solvers import SOLVERS
from sdevid.types import TICKS_PER_SECOND, frame_ticks


@dataclass(frozen=True)
class Request:
    """What to generate."""

    num_samples: int  # of each prompt
    num_frames: int  # of a written video, the initial ones among them
    fps: float  # frames a second
    seed: int
    temperature: float
    steps_per_frame: int | None
    batch_size: int
    solver: str = "euler_maruyama"
    bridge_diffusion: Literal["interpolant", "follmer"] | None = None
    prompts: tuple[str, ...] = ()
    negative_prompt: str | None = None
    guidance_scale: float = 1.0

    @property
    def total(self) -> int:
        """Videos in all."""
        return self.num_samples * max(1, len(self.prompts))

    @property
    def worded(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.prompts) or self.negative_prompt is not None

    def prompt(self, number: int) -> str | None:
        """That of the sample with this number; the last one's for what only fills a batch."""
        if not self.prompts:
            return None
        return self.prompts[min(number // self.num_samples, len(self.prompts) - 1)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sample`."""
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--output_dir", type=Path, required=True, help="folder for the videos")
    add("--num_samples", type=int, default=5, help="videos to make, of each prompt (default: 5)")
    add("--prompt", action="append", default=[], help="what the video shows; may be given again")
    add("--negative_prompt", help="what guidance leads away from (default: no text)")
    add("--guidance_scale", type=float, default=1.0, help="of the prompt (default: 1, no guidance)")
    add("--seed", type=int, default=0, help="the same seed gives the same videos (default: 0)")
    add("--initial_frames", type=Path, help="a video, a folder of pictures, or one picture")
    add("--num_initial_frames", type=int, help="how many of them (default: all the model takes)")
    add("--final_frames", type=Path, help="a video, pictures or a picture that it is to end with")
    add("--keyframes", nargs="+", metavar="INDEX:PATH", default=[], help="pictures at these frames")
    add("--num_frames", type=int, help="frames a video, initial ones included (default: training)")
    add("--fps", type=float, help="frames a second (default: that of training)")
    add("--temperature", type=float, default=1.0, help="scales the noise of the motion; 0: none")
    add("--steps_per_frame", type=int, help="solver steps between frames (default: training)")
    add("--solver", choices=tuple(SOLVERS), default="euler_maruyama", help="of the SDE")
    add(
        "--bridge_diffusion",
        choices=("interpolant", "follmer"),
        help=f"for model_type {', '.join(takers_of('bridge_diffusion'))}",
    )
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
        solver=args.solver,
        bridge_diffusion=args.bridge_diffusion,
        prompts=tuple(args.prompt),
        negative_prompt=args.negative_prompt,
        guidance_scale=args.guidance_scale,
    )
    check_request(request, config)
    return request


def check_request(request: Request, config: Config) -> None:
    """Raises UserError naming the setting that is out of range or does not fit the model."""
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
    _check_text(request, config)
    _check_solver(request, config)


def _check_text(request: Request, config: Config) -> None:
    scale = request.guidance_scale
    if not 0 <= scale < float("inf"):
        raise UserError(f"--guidance_scale is {scale}, but must be 0 or more; 1 is no guidance")
    if config.text.encoder != "none":
        if request.negative_prompt is not None and scale == 1:
            raise UserError(
                "--negative_prompt does nothing at --guidance_scale 1; give a larger one, e.g. 3"
            )
        return
    given = [
        name
        for name, there in (
            ("--prompt", bool(request.prompts)),
            ("--negative_prompt", request.negative_prompt is not None),
            ("--guidance_scale", scale != 1),
        )
        if there
    ]
    if given:
        raise UserError(
            f"{given[0]} is given, but this model was trained without text (text.encoder is none "
            "in its config); leave it out, or train with text.encoder=bytes"
        )


def _check_solver(request: Request, config: Config) -> None:
    name, can = request.solver, config.capabilities
    if request.bridge_diffusion is not None and "bridge_diffusion" not in can.sampling_options:
        raise UserError(
            f"--bridge_diffusion is given, but this model's model_type is {config.model_type}; it "
            f"is for {', '.join(takers_of('bridge_diffusion'))}"
        )
    if can.schemes is not None and name not in can.schemes:
        raise UserError(
            f"--solver is {name}, but model_type {config.model_type} takes "
            f"{', '.join(can.schemes)} alone"
        )
    if name == "euler_maruyama":
        return
    if config.sde.order == 2:
        raise UserError(
            f"--solver is {name}, but a model of sde.order 2 has no noise on its positions and "
            "takes euler_maruyama alone; leave --solver out"
        )
    if config.sde.noise not in SOLVERS[name].strong_order:
        raise UserError(
            f"--solver is {name}, but it does not take the model's noise (sde.noise is "
            f"{config.sde.noise}); milstein and heun do"
        )
    if request.temperature == 0:
        raise UserError(f"--solver is {name}, but --temperature 0 needs euler_maruyama")
    if SOLVERS[name].needs_area:
        _check_whole_cells(request, config)


def _check_whole_cells(request: Request, config: Config) -> None:
    cell = round(TICKS_PER_SECOND / (config.fps * config.sde.steps_per_frame))
    steps = request.steps_per_frame
    times = frame_ticks(request.num_frames, request.fps)[None]
    if bool((solver_grid(times, cell, steps)[0] % cell).any()):
        raise UserError(
            f"--solver is {request.solver}, whose steps must be whole ones of the training's "
            f"(1/{TICKS_PER_SECOND // cell} s); leave out --steps_per_frame and take an --fps that "
            f"divides {TICKS_PER_SECOND // cell}"
        )
