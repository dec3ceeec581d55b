"""Generates the videos of a job: the work of `sample`, on one process or several.

Sample i is a function of the model, the settings, the seed and i alone: its number is the serial
that keys its noise, and samples are made in batches of a fixed size, so that neither the number of
processes nor that of samples reaches a bit of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdevid import console
from sdevid.display import Display
from sdevid.errors import NonFiniteError
from sdevid.models import text
from sdevid.models.sampling import Chunk, Conditioning, SamplerConfig
from sdevid.models.text import Tokenizer
from sdevid.models.video_model import VideoModel
from sdevid.owner import own
from sdevid.sample import outputs, write
from sdevid.sample.job import SamplingJob
from sdevid.sample.write import Pixels
from sdevid.transfer import to_device
from sdevid.types import Frames, Ticks

if TYPE_CHECKING:
    from accelerate import PartialState


class GuidedVideos(NamedTuple):
    """Videos, and what guidance spent on each."""

    videos: write.Frames  # number, time, height, width, channels
    nats: list[float]


def sample(
    model: VideoModel,
    job: SamplingJob,
    output_dir: Path,
    processes: PartialState,
    provenance: dict[str, object] | None = None,
) -> None:
    """Generate the videos of `job` into `output_dir`, this process its share of the batches.

    `provenance` goes into the record. Threads and process groups stay as they are. Raises UserError
    where `output_dir` cannot be written or is another process's, or a path leaves float32.
    """
    with ExitStack() as stack:
        if processes.is_main_process:
            stack.enter_context(own(output_dir, "--output_dir", _say))
        _sample(model, job, output_dir, processes, provenance)


def _sample(
    model: VideoModel,
    job: SamplingJob,
    output_dir: Path,
    processes: PartialState,
    provenance: dict[str, object] | None,
) -> None:
    main, record = (
        processes.is_main_process,
        outputs.SampleRecord(job, provenance or {}, model.config.source),
    )
    tokenize = text.tokenizer(model.config, processes.device) if job.has_text else None
    if main:
        for note in (*model.notes(), *(job.observed.notes if job.observed else ())):
            _say(note)
        outputs.prepare(output_dir)
    processes.wait_for_everyone()
    model = model.to(processes.device).eval()
    with (
        processes.split_between_processes(job.batches()) as shard,
        Display(len(shard), "batches", title="sampling", shown=main) as display,
    ):
        for numbers in shard:
            samples = generate_samples(model, job, numbers, tokenize)
            outputs.save(output_dir, record, numbers, samples.videos, samples.nats)
            display.advance(1)
    processes.wait_for_everyone()
    if main:
        outputs.finish(output_dir, record, processes.device.type)
        count = f"{job.total} videos in {output_dir}"
        _say(f"{count}, made by {processes.num_processes} process(es)")
    processes.wait_for_everyone()


def _say(text: str) -> None:
    if console.shows("info"):
        print(text, file=sys.stderr)


def generate(
    model: VideoModel,
    ticks: Ticks,
    sampler: SamplerConfig,
    conditioning: Conditioning | None = None,
) -> Iterator[Chunk]:
    """Generate video at `ticks` in chunks of consecutive frames, on the model's device.

    Raises UserError where the model cannot take the sampler's solver or guidance, NonFiniteError
    where a pixel is lost: its path has left what float32 holds.
    """
    for chunk in model.chunks(ticks, sampler, conditioning):
        _check_finite(chunk.frames)
        yield chunk


def generate_samples(
    model: VideoModel, job: SamplingJob, numbers: Sequence[int], tokenize: Tokenizer | None = None
) -> GuidedVideos:
    """Generate the samples with these numbers; observed frames stand in them unchanged.

    A leading frame that was not observed is NaN, or black of uint8.
    """
    device, observed = next(model.parameters()).device, job.observed
    serial = torch.tensor(numbers, dtype=torch.int64, device=device)
    ticks = model.config.frame_ticks(job.num_frames, job.fps)
    ticks = ticks.expand(len(serial), -1)  # on the host, which plans the steps
    leading = 0 if observed is None else observed.leading
    conditioning = _conditioning(job, numbers, ticks, tokenize, device)
    sampler = job.sampler._replace(serial=serial)
    whole = model.config.source.transform == "none"
    convert: Callable[[Frames], write.Frames] = as_pixels if whole else as_values
    videos, nats = [], torch.zeros(len(serial), device=device)
    for chunk in model.chunks(ticks[:, leading:], sampler, conditioning):
        videos.append(convert(chunk.frames))
        nats = nats + chunk.nats
    video = np.concatenate(videos, axis=1)
    if observed is not None:
        given = observed.frames
        pixels = write.as_uint8(given) if whole else _in_unit_range(given)
        shape, absent = (len(video), leading, *video.shape[2:]), 0 if whole else np.nan
        video = np.concatenate([np.full(shape, absent, video.dtype), video], axis=1)
        video[:, list(observed.indices)] = pixels
    return GuidedVideos(video, nats.tolist())


def _conditioning(
    job: SamplingJob,
    numbers: Sequence[int],
    ticks: Ticks,
    tokenize: Tokenizer | None,
    device: torch.device,
) -> Conditioning:
    """Bring the job's frames and prompts to `device`, for the samples `numbers`."""
    conditioning, observed = Conditioning(), job.observed
    if observed is not None:
        values = to_device(torch.from_numpy(_in_unit_range(observed.frames)), device)
        frames = values.permute(0, 3, 1, 2).expand(len(numbers), -1, -1, -1, -1)
        conditioning = Conditioning(frames, ticks[:, list(observed.indices)])
    if tokenize is None:
        return conditioning
    prompts = tokenize([job.prompt(number) or "" for number in numbers])
    negative = tokenize([job.negative_prompt or ""] * len(numbers))
    return conditioning._replace(text=prompts.to(device), negative_text=negative.to(device))


def _in_unit_range(frames: write.Frames) -> NDArray[np.float32]:
    """Convert uint8 to [0, 1]; leave values in their transform's range as they are."""
    scale = 255 if frames.dtype == np.uint8 else 1
    return np.divide(frames, scale, dtype=np.float32)


def as_values(frames: Frames) -> NDArray[np.float32]:
    """Convert frames to float32 (batch, time, height, width, channels), as the model has them.

    Raises NonFiniteError where a value is lost.
    """
    values = frames.float().movedim(-3, -1).contiguous().cpu()
    _check_finite(values)
    on_host: NDArray[np.float32] = values.numpy()
    return on_host


def as_pixels(frames: Frames) -> Pixels:
    """Convert frames in [0, 1] to uint8 (batch, time, height, width, channels) on the host.

    Raises NonFiniteError where a pixel is lost.
    """
    is_finite = frames.isfinite().all()
    video = (frames.float().clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1)
    both = torch.cat([video.flatten(), is_finite.to(torch.uint8)[None]]).cpu()  # one wait
    _check(bool(both[-1]))
    pixels: Pixels = both[:-1].view(video.shape).numpy()
    return pixels


def _check_finite(frames: Tensor) -> None:
    _check(bool(frames.isfinite().all()))


def _check(is_finite: bool) -> None:
    if not is_finite:
        raise NonFiniteError(
            "a generated video holds NaNs: the drift carries the state out of bounds; take another "
            "checkpoint, or more solver steps a frame"
        )
