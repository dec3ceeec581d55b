"""A trained model for notebooks: `VideoSDE.from_pretrained(path).sample(...)`.

Videos are uint8 arrays, (number, time, height, width, channels). The options mean what those of
`python -m sdevid sample` mean, and the same seed gives the same videos.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdevid import export
from sdevid.checkpoint import Weights
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models import text
from sdevid.models.sampling import SamplerConfig
from sdevid.models.text import Tokenizer
from sdevid.models.video_model import VideoModel
from sdevid.sample import observed_frames
from sdevid.sample.film import film
from sdevid.sample.job import SamplingJob, check_job
from sdevid.sample.sampler import generate_samples
from sdevid.sample.write import Frames


class VideoSDE:
    """A model that generates, carries on and fills in video."""

    def __init__(self, model: VideoModel, config: Config, folder: Path) -> None:
        self.model, self.config, self.folder = model, config, folder

    @classmethod
    def from_pretrained(
        cls, path: str | Path, weights: Weights = "ema", device: str | None = None
    ) -> VideoSDE:
        """Load the model in a run folder, a checkpoint or an exported folder.

        On a GPU where there is one, or on `device`. Raises UserError where there is no model.
        """
        model, config = export.load(Path(path), weights)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model.to(place), config, Path(path))

    def __repr__(self) -> str:
        """Name kind, size and shape of the model."""
        config, count = self.config, sum(p.numel() for p in self.model.parameters())
        size = f"{config.frame_text} pixels, {config.channels} channel(s), {config.fps:g} fps"
        return f"VideoSDE({config.model_type}, {count:,} parameters, {size})"

    def _repr_html_(self) -> str:
        """Play two samples, as a notebook shows the model."""
        films = self.sample(num_samples=2)
        shown = film(films, self.config.fps, columns=2, side=96, title="two samples")
        return f'<p>{html.escape(repr(self))}</p><div style="max-width:26rem">{shown}</div>'

    def sample(self, num_samples: int = 1, **options: Any) -> Frames:
        """Generate videos from nothing but the options.

        These are `num_frames`, `fps`, `seed`, `temperature`, `steps_per_frame`, `solver`, `prompt`,
        `negative_prompt`, `guidance_scale`, `bridge_diffusion`, `batch_size`. Raises UserError
        where one is wrong.
        """
        return self._generate(self._job(num_samples, options))

    def predict(self, frames: Frames, num_samples: int = 1, **options: Any) -> Frames:
        """Continue `frames` (time, height, width, channels), with which the videos begin.

        They are uint8, or float32 in the range of the data's transform, as samples are.
        A frame of NaN alone is not shown to the model. `num_frames` counts the given ones too.
        Raises UserError where frames or options are wrong.
        """
        most = self.config.observation.max_context
        if len(frames) > most:
            raise UserError(
                f"{len(frames)} frames are conditioning, but the model takes at most {most} "
                "(observation.max_context in its config); give the last ones"
            )
        return self.fill(frames, range(len(frames)), num_samples, **options)

    def fill(
        self, frames: Frames, indices: Sequence[int], num_samples: int = 1, **options: Any
    ) -> Frames:
        """Generate videos in which `frames` stand at these indices.

        Raises UserError where frames, indices or options are wrong.
        """
        frames = self._checked(frames, indices)
        job = self._job(num_samples, options)
        if list(indices) != list(range(len(frames))) and not self.config.observation.ahead:
            raise UserError(
                f"frames are given at {list(indices)}, but this model was trained to go on from "
                "initial frames alone (observation.ends_fraction and keyframes_fraction are 0)"
            )
        places = tuple(int(at) for at in indices)
        observed = observed_frames.from_arrays(frames, places, self.config, job)
        return self._generate(replace(job, observed=observed))

    def push_to_hub(self, repo_id: str, weights: Weights = "ema", private: bool = False) -> str:
        """Upload weights and config to the Hugging Face hub; return the commit's address.

        Raises UserError where huggingface_hub is not installed or refuses.
        """
        try:
            import huggingface_hub
        except ImportError:
            raise UserError(
                "push_to_hub needs huggingface_hub, which is not installed here; install it"
            ) from None
        with tempfile.TemporaryDirectory() as folder:
            export.export(self.folder, Path(folder), weights)
            hub = huggingface_hub.HfApi()
            try:
                hub.create_repo(repo_id, private=private, exist_ok=True)
                commit = hub.upload_folder(repo_id=repo_id, folder_path=folder)
            except (OSError, ValueError) as error:  # both of requests and of a bad repo_id
                raise UserError(f"the hub did not take {repo_id}: {error}") from error
        return str(commit)

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        return text.tokenizer(self.config, next(self.model.parameters()).device)

    def _job(self, num_samples: int, options: dict[str, Any]) -> SamplingJob:
        settings = dict(options)
        prompt = settings.pop("prompt", None)
        prompts = () if prompt is None else (prompt,) if isinstance(prompt, str) else tuple(prompt)
        sampler = {*SamplerConfig._fields} - {"serial"}
        job: dict[str, Any] = {
            "num_frames": self.config.sequence_length,
            "fps": self.config.fps,
            "batch_size": 8 if next(self.model.parameters()).is_cuda else 1,
            "negative_prompt": None,
        }
        known = {*job, *sampler}
        unknown = sorted(settings.keys() - known)
        if unknown:
            raise UserError(
                f"{unknown[0]} is no option; there are prompt, {', '.join(sorted(known))}"
            )
        how = {name: value for name, value in settings.items() if name in sampler}
        job |= {name: value for name, value in settings.items() if name in job}
        sampling_job = SamplingJob(
            num_samples, sampler=SamplerConfig(**how), prompts=prompts, **job
        )
        check_job(sampling_job, self.config)
        return sampling_job

    def _checked(self, frames: Frames, indices: Sequence[int]) -> Frames:
        frames = np.asarray(frames)
        wanted = (*self.config.frame_shape, self.config.channels)
        dtype = "uint8" if self.config.source.transform == "none" else "float32"
        if frames.dtype != dtype or frames.shape[1:] != wanted:
            raise UserError(
                f"frames are {frames.dtype} of shape {frames.shape}, but the model takes {dtype} "
                f"of shape (number, {', '.join(map(str, wanted))}), as its samples are"
            )
        if len(frames) != len(indices) or not len(frames):
            raise UserError(
                f"{len(frames)} frames are given for {len(indices)} indices; give an index "
                "for each, and one frame or more"
            )
        return frames

    def _generate(self, job: SamplingJob) -> Frames:
        tokenize = self._tokenizer if job.has_text else None
        videos = [
            generate_samples(self.model, job, numbers, tokenize).videos for numbers in job.batches()
        ]
        return np.concatenate(videos)[: job.total]
