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
from sdevid.errors import NonFiniteError
from sdevid.models import text
from sdevid.models.text import Reader
from sdevid.models.video_model import Given, VideoModel, Walk
from sdevid.sample import conditions, outputs
from sdevid.sample.conditions import Observed
from sdevid.sample.outputs import Generated
from sdevid.sample.request import Request, add_arguments, check
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
    given = conditions.read(args, config, request)
    read_text = text.reader(config, state.device) if request.worded else None
    if state.is_main_process:
        for note in given.notes if given else ():
            print(note, file=sys.stderr)
        outputs.prepare(args.output_dir)
    state.wait_for_everyone()
    model = model.to(state.device).eval()
    batches = list(range(-(-request.total // request.batch_size)))
    with state.split_between_processes(batches) as mine:
        for batch in tqdm(mine, "sampling", unit="batch", disable=not state.is_main_process):
            first = batch * request.batch_size
            numbers = range(first, first + request.batch_size)
            made = generate(model, request, numbers, given, read_text)
            outputs.save(args, request, numbers, made, given)
    state.wait_for_everyone()
    if state.is_main_process:
        outputs.finish(args, request, given, str(state.device.type))
        told = f"{request.total} videos in {args.output_dir}"
        print(f"{told}, made by {state.num_processes} process(es)", file=sys.stderr)
    state.wait_for_everyone()
    state.destroy_process_group()
    return 0


def generate(
    model: VideoModel,
    request: Request,
    numbers: Sequence[int],
    observed: Observed | None = None,
    read_text: Reader | None = None,
) -> Generated:
    """The samples with these numbers; given frames stand in them as they were given."""
    device = next(model.parameters()).device
    serial = torch.tensor(numbers, dtype=torch.int64, device=device)
    ticks = frame_ticks(request.num_frames, request.fps).to(device).expand(len(serial), -1)
    known = 0 if observed is None else observed.leading
    given = Given()
    if observed is not None:
        pixels = torch.from_numpy(observed.frames).to(device).permute(0, 3, 1, 2)
        context = (pixels.float() / 255).expand(len(serial), -1, -1, -1, -1)
        given = Given(context, ticks[:, list(observed.places)])
    if read_text is not None:
        told = read_text([request.prompt(number) or "" for number in numbers])
        other = read_text([request.negative_prompt or ""] * len(numbers))
        given = given._replace(text=told.to(device), negative=other.to(device))
    walk = Walk(
        request.seed,
        serial,
        request.steps_per_frame,
        request.temperature,
        request.solver,
        request.bridge_diffusion,
        request.guidance_scale,
    )
    parts, nats = [], torch.zeros(len(serial), device=device)
    for part in model.windows(ticks[:, known:], walk, given):
        parts.append(as_pixels(part.frames))
        nats = nats + part.nats
    video = np.concatenate(parts, axis=1)
    if observed is not None:
        before = np.broadcast_to(observed.frames[:known], (len(video), known, *video.shape[2:]))
        video = np.concatenate([before, video], axis=1)
        video[:, list(observed.places)] = observed.frames
    return Generated(video, nats.tolist())


def as_pixels(frames: Frames) -> Pixels:
    """Frames in [0, 1] as uint8 video (batch, time, height, width, channels) on the host.

    Raises NonFiniteError where a pixel is lost: its path has left what float32 holds.
    """
    if not bool(frames.isfinite().all()):
        raise NonFiniteError(
            "a generated video holds NaNs: the drift carries the state out of bounds; take another "
            "checkpoint, or more solver steps a frame"
        )
    video = (frames.float().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = video.movedim(-3, -1).contiguous().cpu().numpy()
    return pixels


__all__ = ["add_arguments", "as_pixels", "generate", "run"]
