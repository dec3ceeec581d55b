"""Video that the evaluated model generates: freely, after a prefix, or of a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdevid.errors import UserError
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values
from sdevid.models.growing_noise import GrowingNoise
from sdevid.models.history_model import Context, HistoryModel
from sdevid.models.protocols import Likelihood
from sdevid.models.sampling import Chunk, Conditioning, SamplerConfig
from sdevid.models.start import Guidance
from sdevid.models.text import Tokenizer
from sdevid.models.video_model import VideoModel
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.objectives.start import draw_start
from sdevid.sample.sampler import as_pixels, as_values
from sdevid.types import Batch, Frames, Serial, Ticks, Video, as_frames, present_frames

ROWS = 64  # futures generated at once
FREE_ROWS = 32  # free videos generated at once, at most
VALUES = 2**25  # values of free videos generated at once, at most


def in_grey_levels(model: VideoModel) -> bool:
    """Tell whether the model's values stand for 256 grey levels; a transform's are finer."""
    return model.config.source.transform == "none"


def as_stored(model: VideoModel, frames: Frames) -> Values:
    """Convert frames to uint8, or to float32 in the range of the model's transform.

    Axes are those of `frames`, channels last. Raises NonFiniteError where a value is lost.
    """
    return as_pixels(frames) if in_grey_levels(model) else as_values(frames)


class Futures(NamedTuple):
    """Futures of clips after their context."""

    samples: Values  # (clips, samples, predicted frames, height, width, channels)
    mean: Floats  # of them, in unit range; (clips, predicted, height, width, channels)
    observed: Values | None = None  # the samples with observation noise, if asked for


@torch.no_grad()
def free_videos(
    model: VideoModel, videos: range, frames: int, fps: float, seed: int, title: str
) -> Values:
    """Generate videos from no frame, one for each serial in `videos`.

    A serial gives the same video at any frame rate. Returns (videos, frames, height, width,
    channels).
    """
    config, device = model.config, _device(model)
    ticks = model.config.frame_ticks(frames, fps).to(device)
    values = frames * math.prod(config.frame_shape) * config.channels
    parts = []
    for part in batches(videos, max(1, min(FREE_ROWS, VALUES // values)), title):
        serial = torch.tensor(part, device=device)
        video = model.sample(ticks.expand(len(part), -1), seed=seed, serial=serial)
        parts.append(as_stored(model, video))
    return np.concatenate(parts)


@torch.no_grad()
def futures(
    model: VideoModel,
    batch: Batch,
    context: int,
    samples: int,
    seed: int,
    observation: Likelihood | GrowingNoise | None = None,
) -> Futures:
    """Generate `samples` futures of each clip after its first `context` frames.

    A frame of which nothing was observed is left out. With `observation` each future also comes
    with a draw of its frames from that likelihood. Raises UserError for a clip of whose context
    nothing was observed.
    """
    frames, noisy = _continued(model, batch, context, samples, seed, observation)
    frames = frames.reshape(-1, samples, *frames.shape[1:])
    shown = frames.clamp(0, 1) if in_grey_levels(model) else frames
    mean = shown.mean(dim=1).movedim(-3, -1).double().cpu().numpy()
    drawn = None if noisy is None else as_stored(model, noisy.reshape(frames.shape))
    return Futures(as_stored(model, frames), mean, drawn)


@torch.no_grad()
def between(
    model: VideoModel,
    batch: Batch,
    indices: list[int],
    inner: list[int],
    samples: int,
    seed: int,
    observation: Likelihood | GrowingNoise | None = None,
) -> tuple[Values, Values | None]:
    """Generate `samples` ways through one clip of which the frames `indices` are observed.

    One of which nothing was observed is left out. Returns the frames `inner`, (samples, frames,
    height, width, channels), and with `observation` draws of them from that likelihood. Raises
    UserError where nothing was observed.
    """
    device = _device(model)
    ((_, seen),) = _observed_alike(batch.video[:, indices], batch.keys)
    places = torch.tensor(indices)[seen]
    parts: list[Chunk] = []
    for first in range(0, samples, ROWS):
        serial = torch.arange(first, min(first + ROWS, samples)) + batch.serial * samples
        count = len(serial)
        observed = as_frames(batch.video[:, places]).expand(count, -1, -1, -1, -1)
        times = batch.ticks[:, places].expand(count, -1)
        sampler = SamplerConfig(seed, serial.to(device), observation=observation)
        given = Conditioning(observed.to(device), times.to(device))
        ahead = batch.ticks[:, 1:].expand(count, -1).to(device)
        parts.append(model.generate(ahead, sampler, given))
    chosen = [k - 1 for k in inner]
    frames = as_stored(model, torch.cat([part.frames for part in parts]))[:, chosen]
    noisy = [part.observed for part in parts if part.observed is not None]
    return frames, as_stored(model, torch.cat(noisy))[:, chosen] if noisy else None


@torch.no_grad()
def prompted(
    model: VideoModel, read: Tokenizer, prompt: str, scale: float, serials: range, seed: int
) -> tuple[Values, list[float]]:
    """Generate videos of a prompt, as long as training's clips, and the nats guidance spent."""
    config, device = model.config, _device(model)
    serial = torch.tensor(serials, device=device)
    ticks = config.frame_ticks(config.sequence_length).to(device).expand(len(serials), -1)
    sampler = SamplerConfig(seed, serial, guidance_scale=scale)
    text = read([prompt] * len(serials)).to(device)
    videos = model.generate(ticks, sampler, Conditioning(text=text))
    return as_stored(model, videos.frames), videos.nats.tolist()


@torch.no_grad()
def continued(
    model: VideoModel, observed: Values, frames: int, fps: float, seed: int, title: str
) -> Values:
    """Continue films from the frames `observed`, at the training rate, by `frames` at `fps`.

    A frame of which nothing was observed is left out. Returns (films, frames, height, width,
    channels). Raises UserError for a film without an observed frame.
    """
    config = model.config
    before = config.frame_ticks(observed.shape[1])
    ticks = before[-1] + config.frame_ticks(frames + 1, fps)[1:]
    parts = []
    for part in batches(range(len(observed)), FREE_ROWS, title):
        batch = Batch(
            video=torch.from_numpy(observed[part.start : part.stop]),
            ticks=torch.cat([before, ticks]).expand(len(part), -1),
            serial=torch.tensor(part),
            keys=tuple(map(str, part)),
            captions=(),
        )
        parts.append(as_stored(model, _continued(model, batch, len(before), 1, seed)[0]))
    return np.concatenate(parts)


def _continued(
    model: VideoModel,
    batch: Batch,
    context: int,
    samples: int,
    seed: int,
    observation: Likelihood | GrowingNoise | None = None,
) -> tuple[Frames, Frames | None]:
    """Generate `samples` futures a clip, clip by clip, and draws of them from `observation`."""
    device = _device(model)
    serial = (batch.serial[:, None] * samples + torch.arange(samples)).flatten()
    clip = torch.arange(len(batch.serial)).repeat_interleave(samples)
    video, ticks = as_frames(batch.video[:, :context]), batch.ticks
    parts: list[Chunk] = []
    order: list[Tensor] = []
    for clips, seen in _observed_alike(batch.video[:, :context], batch.keys):
        for rows in torch.split(torch.isin(clip, clips).nonzero()[:, 0], ROWS):
            at = clip[rows]
            sampler = SamplerConfig(seed, serial[rows].to(device), observation=observation)
            given = video[at][:, seen].to(device), ticks[at][:, seen].to(device)
            ahead = ticks[at, context:].to(device)
            parts.append(model.generate(ahead, sampler, Conditioning(*given)))
            order.append(rows)
    back = torch.cat(order).argsort()
    noisy = [part.observed for part in parts if part.observed is not None]
    frames = torch.cat([part.frames for part in parts])[back]
    return frames, torch.cat(noisy)[back] if noisy else None


def _observed_alike(video: Video, keys: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Group clips of whose context the same frames were observed: yield them and those frames.

    Raises UserError for a clip without one.
    """
    present = present_frames(video)
    for pattern in torch.unique(present, dim=0):
        clips = (present == pattern).all(1).nonzero()[:, 0]
        if not pattern.any():
            raise UserError(
                f"clip {keys[clips[0]]}: nothing was observed of the {len(pattern)} frame(s) that "
                "it is predicted from; give a larger --context, or cut the data again with a "
                "--keep_if such as 'nan < 0.5'"
            )
        yield clips, pattern.nonzero()[:, 0]


class EncodedClips(NamedTuple):
    """Clips as the model encodes them: the input of its prior, and its posterior's path."""

    content: Tensor  # w, (clips, content)
    states: Tensor  # (clips, frames, *latent), a draw of the posterior; frames from the last given
    frames: Frames  # real ones, as many
    ticks: Ticks
    context: Context
    serial: Serial
    nats: dict[str, Floats]  # KL terms by clip


@torch.no_grad()
def encode(objective: HistoryObjective, batch: Batch, context: int) -> EncodedClips:
    """Draw the posterior of clips whose first `context` frames the prior sees."""
    device = _device(objective.model)
    video, ticks, serial = (part.to(device) for part in (batch.video, batch.ticks, batch.serial))
    clips = objective.encode(Clips(video, ticks, serial, context))
    start = draw_start(objective.model, clips, objective.config.seed)
    path = objective.path(clips, start)
    nats = {k: v for k, v in (start.divergence | path.terms).items() if k.startswith("kl_")}
    count = int(clips.window.valid.sum(1).min())
    return EncodedClips(
        content=start.content,
        states=path.states[:, :count],
        frames=clips.window.cut(as_frames(video))[:, :count],
        ticks=clips.ticks[:, :count],
        context=Context(clips.context, None, clips.future),
        serial=serial,
        nats={name: value.double().cpu().numpy() for name, value in nats.items()},
    )


@torch.no_grad()
def prior_start(model: HistoryModel, latents: EncodedClips, seed: int) -> tuple[Tensor, Tensor]:
    """Draw w and the first state from the prior."""
    w, z, _ = model.start_prior.sample(
        latents.context.history, seed, latents.serial, Guidance(None, 1.0, 1.0)
    )
    return w, z


@torch.no_grad()
def prior_steps(
    model: HistoryModel,
    latents: EncodedClips,
    start: tuple[Tensor, Tensor],
    frames: tuple[int, int],
    temperature: float,
    seed: int,
) -> Tensor:
    """Move `start`, (w, z) at the first of two frames, by the prior; return z at the second."""
    w, z = start
    move = model.transition(
        w, latents.context, SamplerConfig(seed, latents.serial, temperature=temperature)
    )
    return move(z, latents.ticks[:, list(frames)]).states[:, -1]


def _device(model: VideoModel) -> torch.device:
    return next(model.parameters()).device
