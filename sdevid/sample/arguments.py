"""The command line of `sample`: its arguments, and the job that they ask for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sdevid import clock
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.sampling import SamplerConfig
from sdevid.objectives.registry import takers_of
from sdevid.sample import formats, observed_frames
from sdevid.sample.formats import DEFAULT_FORMATS, FORMATS
from sdevid.sample.job import SamplingJob, check_job
from sdevid.sde.solvers import SOLVERS
from sdevid.sde.torchsde_bridge import SCHEMES

TOLERANCE = 1e-3  # relative, and absolute in latent units


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `sample`."""
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help="a run, a checkpoint or an exported model")
    add("--output_dir", type=Path, required=True, help="folder for the videos")
    add("--num_samples", type=int, default=5, help="videos of each prompt")
    add("--prompt", action="append", default=[], help="what the video shows; may be repeated")
    add("--negative_prompt", help="what guidance leads away from (default: no text)")
    add("--guidance_scale", type=float, default=1.0, help="of the prompt (default: 1, none)")
    add("--seed", type=int, default=0, help="the same seed gives the same videos")
    add(
        "--initial_frames",
        type=Path,
        help="a video, pictures, or an array in the source's units (npy, TIFF, file.h5:/path, ...)",
    )
    add("--missing", type=float, help="the value in such arrays of what was not observed")
    add("--num_initial_frames", type=int, help="how many of them (default: all the model takes)")
    add("--final_frames", type=Path, help="a video, pictures or a picture that the video ends with")
    add("--keyframes", nargs="+", metavar="INDEX:PATH", default=[], help="pictures at these frames")
    add("--num_frames", type=int, help="frames a video, initial ones included (default: training)")
    clock.add_arguments(parser, None, "default: that of training")
    add(
        "--formats",
        default=",".join(DEFAULT_FORMATS),
        help=f"with commas: {', '.join(FORMATS)} (default: {','.join(DEFAULT_FORMATS)})",
    )
    add("--colormap", help="matplotlib's name of one, for one channel in mp4 and GIF (grey)")
    add("--temperature", type=float, default=1.0, help="scales the noise of the motion; 0: none")
    add("--steps_per_frame", type=int, help="solver steps between frames (default: training)")
    add("--solver", choices=(*SOLVERS, *SCHEMES), help="of the SDE (default: training)")
    add("--adaptive", action="store_true", help="steps by their error, of a torchsde solver")
    add("--tolerance", type=float, help=f"of adaptive steps (default: {TOLERANCE:g})")
    add(
        "--bridge_diffusion",
        choices=("interpolant", "follmer"),
        help=f"for model_type {', '.join(takers_of('bridge_diffusion'))}",
    )
    add("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw weights")
    add("--batch_size", type=int, help="videos made at once (default: 1 on a CPU, 8 on a GPU)")


def job_from(args: argparse.Namespace, config: Config, batch_size: int) -> SamplingJob:
    """Turn `args` into a checked job, with gaps filled from the training.

    Raises UserError, which names the option, where one is out of range or the model cannot take it.
    """
    job = SamplingJob(
        num_samples=args.num_samples,
        num_frames=config.sequence_length if args.num_frames is None else args.num_frames,
        fps=config.fps if args.fps is None else args.fps,
        batch_size=batch_size if args.batch_size is None else args.batch_size,
        sampler=SamplerConfig(
            seed=args.seed,
            temperature=args.temperature,
            steps_per_frame=args.steps_per_frame,
            solver=args.solver,
            tolerance=_tolerance(args),
            bridge_diffusion=args.bridge_diffusion,
            guidance_scale=args.guidance_scale,
        ),
        prompts=tuple(args.prompt),
        negative_prompt=args.negative_prompt,
        formats=formats.parse(args.formats),
        colormap=formats.check_colormap(args.colormap, config.channels),
    )
    check_job(job, config)
    return replace(job, observed=observed_frames.read(args, config, job))


def _tolerance(args: argparse.Namespace) -> float | None:
    if args.tolerance is not None and not args.adaptive:
        raise UserError(
            f"--tolerance is {args.tolerance:g}, but steps are of one length; add --adaptive"
        )
    if not args.adaptive:
        return None
    return TOLERANCE if args.tolerance is None else float(args.tolerance)


def provenance(args: argparse.Namespace) -> dict[str, object]:
    """Describe where model and frames come from, for the record of the samples."""
    return {
        "model_path": str(args.model_path),
        "weights": args.weights,
        "initial_frames": str(args.initial_frames) if args.initial_frames else None,
        "final_frames": str(args.final_frames) if args.final_frames else None,
        "keyframes": list(args.keyframes),
    }
