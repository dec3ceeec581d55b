"""What sets of videos, the optical flow and the user's networks say."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdevid.data import stream
from sdevid.evaluate import digit_futures, prompts, sets
from sdevid.evaluate.measured import Floats, mean_over
from sdevid.evaluate.networks import as_input, image_distance, video_network
from sdevid.evaluate.prediction import futures
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.subject import Subject

CLIPS, SAMPLES = 64, 4  # predicted for LPIPS

Distance = Callable[[Tensor, Tensor], Any]


def networks(
    subject: Subject, args: argparse.Namespace, taken: tuple[str, ...]
) -> dict[str, Callable[..., Any]]:
    """The user's networks, each tried. UserError, before any long work, where one does not fit."""
    found: dict[str, Callable[..., Any]] = {}
    if "fvd" in taken:
        frames = subject.config.sequence_length
        frames -= args.context if args.set_context == "out" else 0
        found["fvd"] = video_network(args.fvd_i3d, frames, subject.device)
    if "lpips" in taken:
        found["lpips"] = image_distance(args.lpips, subject.config.frame_size, subject.device)
    return found


def measure(
    subject: Subject,
    args: argparse.Namespace,
    taken: tuple[str, ...],
    given: dict[str, Callable[..., Any]],
) -> dict[str, Any]:
    """The entries of the results that `taken` asks for."""
    found: dict[str, Any] = {}
    if "warping" in taken:
        found["warping"] = sets.warping(subject)
    if "kid" in taken or "fvd" in taken:
        gathered = sets.gather(subject, args.set_size, args.set_context, args.context)
        if "kid" in taken:
            found["kid"] = sets.random_kernel_distance(gathered, subject)
        if "fvd" in taken:
            found["fvd"] = sets.frechet_video_distance(gathered, subject, given["fvd"])
    if "digits" in taken:
        found["digits"] = digit_futures.protocol(subject, args.context, args.best_of)
    if "prompts" in taken:
        found["prompts"] = prompts.followed(subject)
    if "lpips" in taken:
        found["lpips"] = perceptual_distance(subject, args.context, given["lpips"])
    return found


@torch.no_grad()
def perceptual_distance(subject: Subject, context: int, distance: Distance) -> dict[str, Any]:
    """The distance of predicted frames from those that came, of samples and of the last frame."""
    clips = evenly(min(CLIPS, len(subject.clips)), len(subject.index))
    samples, copied = [], []
    for part in batches(clips, 4, "LPIPS"):
        batch = stream.fixed(subject.index, subject.config, part)
        made, _ = futures(subject.model, batch, context, SAMPLES, subject.seed)
        true = _frames(batch.video[:, context:], subject)
        last = batch.video[:, context - 1 : context].expand_as(batch.video[:, context:])
        each = [_frames(torch.from_numpy(made[:, i]), subject) for i in range(SAMPLES)]
        samples.append(np.mean([_by_clip(distance(one, true), part) for one in each], axis=0))
        copied.append(_by_clip(distance(_frames(last, subject), true), part))
    return {
        "clips": len(clips),
        "samples": SAMPLES,
        "context": context,
        "one_sample": mean_over(np.concatenate(samples)).as_json(),
        "copy_last_frame": mean_over(np.concatenate(copied)).as_json(),
    }


def _frames(video: Tensor, subject: Subject) -> Tensor:
    """uint8 (clips, time, height, width, channels) as (clips * time, channels, height, width)."""
    return as_input(video.to(subject.device)).transpose(1, 2).flatten(0, 1)


def _by_clip(distance: Tensor, clips: range) -> Floats:
    found: Floats = distance.double().cpu().numpy().reshape(len(clips), -1).mean(axis=1)
    return found
