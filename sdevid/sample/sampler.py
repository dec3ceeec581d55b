"""Generates video from a trained model: the work of `sample`, on one process or several.

Sample i is a function of the model, the settings, the seed and i alone: its number is the serial
that keys its noise, and samples are made in batches of a fixed size (on a CPU by one thread: two
sum in another order), so that neither the number of processes nor that of samples reaches a bit
of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from sdevid import export
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.video_model import VideoModel
from sdevid.sample import initial, outputs
from sdevid.sample.request import Request, add_arguments, check, check_initial
from sdevid.sample.write import Pixels
from sdevid.types import Frames, frame_ticks


def run(args: argparse.Namespace) -> int:
    """Generate what `args` ask for. Raises UserError for what the user can put right."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())  # else two CPU ranks count as one each
    if state.device.type == "cpu":
        torch.set_num_threads(1)
    model, config = export.load(args.model_path, args.weights)
    request = check(args, config, batch_size=8 if state.device.type == "cuda" else 1)
    given = initial_frames(args, config, request)
    if state.is_main_process:
        for note in given.notes if given else ():
            print(note, file=sys.stderr)
        outputs.prepare(args.output_dir)
    state.wait_for_everyone()
    model = model.to(state.device).eval()
    observed = given.frames if given else None
    batches = list(range(-(-request.num_samples // request.batch_size)))
    with state.split_between_processes(batches) as mine:
        for batch in tqdm(mine, "sampling", unit="batch", disable=not state.is_main_process):
            first = batch * request.batch_size
            numbers = range(first, first + request.batch_size)
            videos = generate(model, request, numbers, observed)
            outputs.save(args.output_dir, request, numbers, videos, given)
    state.wait_for_everyone()
    if state.is_main_process:
        outputs.finish(args, request, given, str(state.device.type))
        made = f"{request.num_samples} videos in {args.output_dir}"
        print(f"{made}, made by {state.num_processes} process(es)", file=sys.stderr)
    state.wait_for_everyone()
    state.destroy_process_group()
    return 0


def initial_frames(
    args: argparse.Namespace, config: Config, request: Request
) -> initial.Initial | None:
    """The initial frames that `args` name, as the model takes them; None where they name none."""
    check_initial(args, config)
    if args.initial_frames is None:
        return None
    given = initial.read(
        args.initial_frames,
        args.num_initial_frames,
        config.observation.max_context,
        config.frame_size,
        config.channels,
        request.fps,
    )
    if len(given.frames) >= request.num_frames:
        raise UserError(
            f"--num_frames is {request.num_frames}, but {len(given.frames)} of them are initial "
            "frames and at least one must be generated; give a larger --num_frames"
        )
    return given


def generate(
    model: VideoModel, request: Request, numbers: Sequence[int], observed: Pixels | None
) -> Pixels:
    """Videos (number, time, height, width, channels) of the samples with these numbers."""
    device = next(model.parameters()).device
    serial = torch.tensor(numbers, dtype=torch.int64, device=device)
    ticks = frame_ticks(request.num_frames, request.fps).to(device).expand(len(serial), -1)
    known = 0 if observed is None else len(observed)
    context = None
    if observed is not None:
        pixels = torch.from_numpy(observed).to(device).permute(0, 3, 1, 2)
        context = (pixels.float() / 255).expand(len(serial), -1, -1, -1, -1)
    frames = model.sample(
        ticks[:, known:],
        seed=request.seed,
        serial=serial,
        context=context,
        context_ticks=ticks[:, :known] if known else None,
        steps_per_frame=request.steps_per_frame,
        temperature=request.temperature,
    )
    video = as_pixels(frames)
    if observed is None:
        return video
    given = np.broadcast_to(observed, (len(video), *observed.shape))
    return np.concatenate([given, video], axis=1)


def as_pixels(frames: Frames) -> Pixels:
    """Frames in [0, 1] as uint8 video (batch, time, height, width, channels) on the host."""
    video = (frames.float().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = video.movedim(-3, -1).contiguous().cpu().numpy()
    return pixels


__all__ = ["add_arguments", "as_pixels", "generate", "initial_frames", "run"]
