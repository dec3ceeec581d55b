"""What metrics run on: a model, held-out clips, those of its training, and the options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sdevid import export, objectives
from sdevid.checkpoint import Weights
from sdevid.command_line import MOST_COUNT
from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.folder import Access
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.data.stream import at_own_rate
from sdevid.errors import UserError
from sdevid.evaluate import generation
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.sde_recovery.scene_tracker import SceneTracker, scene_tracker
from sdevid.evaluate.statistics.observed import Values
from sdevid.models.video_model import VideoModel
from sdevid.objectives.clip_objective import ClipObjective
from sdevid.sample.write import Pixels

RATE_TOLERANCE = 0.01
PICTURES = 16  # generated and real videos kept for the run page

SetContext = Literal["none", "in", "out"]


@dataclass(frozen=True)
class EvalOptions:
    """How much is measured, and what the user gives for it."""

    model_path: Path
    data: str | None = None  # folder of shards; None: that of the training
    split: str = "val"
    fps: float | None = None  # at which clips are read and predicted; None: that of the training
    weights: Weights = "ema"
    num_clips: int = 256  # held-out clips, at most
    seed: int = 0
    every: int | None = None  # of `between`: every so-many-th frame is given; None: the ends
    samples: int = 32  # futures of a clip
    context: int = 5  # frames that a prediction is given
    context_fits: bool = False  # fewer where the model takes fewer
    rollouts: int = 128  # free videos to track
    rollout_frames: int = 64  # frames of each
    draws: int = 64  # posterior draws of the IWAE bound
    best_of: int = 100  # futures of a clip of digits
    set_size: int | None = None  # videos of a set; None: all, 2,048 at most
    set_context: SetContext = "none"  # observed frames of set videos: none, kept in, left out
    fvd_i3d: Path | None = None  # TorchScript I3D
    lpips: Path | None = None  # TorchScript LPIPS
    features: Path | None = None  # frozen network of pictures, for KID
    values: str | None = None  # what grey levels stand for, as `source_units.parse` reads it
    thresholds: tuple[float, ...] = ()  # in the source's units, of events that are scored
    growing_noise: bool = False  # fit how observation noise grows with time
    spectra: bool = False  # also score radially averaged power spectra

    def check(self, config: Config) -> None:
        """Raise UserError for a value out of range."""
        least = {"samples": 1, "context": 1, "rollouts": 2, "rollout_frames": 3}
        for name, low in (least | {"num_clips": 1, "draws": 1, "best_of": 2}).items():
            value = getattr(self, name)
            if not low <= value <= MOST_COUNT:
                raise UserError(f"--{name} is {value}, but must be from {low} to {MOST_COUNT:,}")
        if self.set_size is not None and self.set_size < 2:
            raise UserError(f"--set_size is {self.set_size}, but must be 2 or more")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed is {self.seed}, but must be from 0 to 2**63 - 1")
        most = _most_context(config)
        if self.context > most:
            raise UserError(
                f"--context is {self.context}, but the model takes at most {most} frames "
                "(observation.max_context in its config)"
            )


def _most_context(config: Config) -> int:
    return min(config.observation.max_context, config.sequence_length - 1)


@dataclass(frozen=True, eq=False)  # so that results can be cached by context
class EvalContext:
    """A model, held-out clips and those of its training."""

    model: VideoModel
    config: Config
    index: ShardIndex
    training: ShardIndex
    clips: range  # indices of the evaluated clips
    options: EvalOptions
    pictures: dict[str, Pixels] = field(default_factory=dict)  # for the run page, by metrics

    @property
    def seed(self) -> int:
        """Seed of every draw of the evaluation."""
        return self.options.seed

    @property
    def truth(self) -> dict[str, Any] | None:
        """Truth of drawn video: its SDE and units, or its generator. None for other video."""
        return self.index.dataset.get("truth")

    @property
    def sde_unknown(self) -> str | None:
        """Why nothing can be compared with a known SDE; None where the data set names one."""
        if "axes" in (self.truth or {}):
            return None
        dataset = self.index.dataset.get("dataset")
        return f"no SDE is known that moves what the shards of {dataset} show"

    @cached_property
    def tracker(self) -> SceneTracker | None:
        """Tracker of what moves in drawn video; None where no SDE is known."""
        truth = self.truth
        return scene_tracker(truth) if truth and self.sde_unknown is None else None

    @cached_property
    def objective(self) -> ClipObjective:
        """The model's objective, in evaluation mode."""
        return objectives.build(self.config, self.model).eval()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @cached_property
    def free(self) -> Values:
        """Free videos at the training frame rate; few and short where no SDE is known."""
        drawn = self.sde_unknown is None
        frames = self.options.rollout_frames if drawn else self.config.sequence_length
        videos = range(self.options.rollouts if drawn else PICTURES)
        return self.generate(videos, frames, self.config.fps, "free videos")

    def generate(self, videos: range, frames: int, fps: float, title: str) -> Values:
        """Generate free videos; `videos` are serials, which give the same videos at any rate."""
        return generation.free_videos(self.model, videos, frames, fps, self.seed, title)

    def real(self, clips: range, title: str) -> Values:
        """Read the held-out clips with these indices."""
        return read_clips(self.index, self.config, clips, title)


def read_clips(index: ShardIndex, config: Config, clips: range, title: str) -> Values:
    """Read the clips with these indices (clips, time, height, width, channels), as stored.

    uint8, or float32 in the range of the transform with NaN where nothing was observed.
    """
    parts = batches(clips, 64, title)
    return np.concatenate([stream.fixed(index, config, part).values for part in parts])


def at_rate(config: Config, fps: float, index: ShardIndex) -> Config:
    """Copy `config` to read clips at `fps`, and as many of their frames as there are at most.

    The unit of time stays the training's. Raises UserError where the clips' rate is no multiple.
    """
    clip = min(index.clips.kinds)
    stride = round(clip.fps / fps)
    if stride < 1 or abs(clip.fps / fps / stride - 1) > RATE_TOLERANCE:
        near = clip.fps / max(stride, 1)
        raise UserError(
            f"--fps is {fps:g}, but the clips of {index.folder.location}, split {index.split}, are "
            f"at {clip.fps:g} frames a second, and every so-many-th frame is taken; give --fps "
            f"{near:g}, or cut them at {fps:g}"
        )
    length = min(config.sequence_length, (clip.num_frames - 1) // stride + 1)
    if length < 2:
        raise UserError(
            f"--fps is {fps:g}, but clips of {clip.num_frames} frames at {clip.fps:g} a second "
            "hold one frame at that rate; give a larger --fps, or cut longer clips"
        )
    return config.model_copy(update={"fps": fps, "sequence_length": length})


def open_context(options: EvalOptions) -> EvalContext:
    """Load the model and open its shards. UserError where they or the options do not fit."""
    model, config = export.load(options.model_path, options.weights)
    folder = options.data or config.data
    access = Access.of(config)
    held_out = open_shards(folder, options.split, access)
    training = open_shards(folder, config.split, access)
    if options.fps is not None:
        config = at_rate(config, options.fps, held_out)
    for index in (held_out, training):
        stream.check_clips(index, config if options.fps is None else at_own_rate(index, config))
    if options.context_fits:
        fewer = min(options.context, max(1, _most_context(config)))
        options = replace(options, context=fewer)
    options.check(config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    clips = evenly(options.num_clips, len(held_out))
    return EvalContext(model, config, held_out, training, clips, options)
