"""Whether generated video shows what its prompt says: is the nearest real clip one of that caption?

A prompt is a caption of the training split. Near is by the mean square of pixels over a whole
clip, less that clip's mean over the videos of all prompts: else a blurred video is nearest to the
plainest clip, whatever it was told. So this measures that the text is heeded, not how well it
looks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sdevid.data import stream
from sdevid.evaluate.measured import Floats, mean_over
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.subject import Subject
from sdevid.models import text
from sdevid.models.text import Reader
from sdevid.models.video_model import Given, Walk
from sdevid.sample.sampler import as_pixels
from sdevid.sample.write import Pixels
from sdevid.types import frame_ticks

REAL = 512  # clips of the training split, at most
PROMPTS, VIDEOS = 16, 4  # prompts at most, and videos of each
SCALES = (1.0, 3.0)  # of guidance


def followed(subject: Subject) -> dict[str, Any]:
    """The share of videos whose nearest real clip bears their prompt, by guidance scale.

    By chance it is the share of clips that bear it. With a scale, what guidance spent in nats.
    """
    read = text.reader(subject.config)
    assert read is not None
    videos, captions = _real(subject)
    every = sorted(set(captions) - {""})
    prompts = [every[i] for i in evenly(PROMPTS, len(every))] if every else []
    real = videos.reshape(len(videos), -1).astype(np.float32)
    found: dict[str, Any] = {}
    for scale in SCALES if prompts else ():
        apart, nats = [], []
        for part in batches(range(len(prompts)), 1, f"prompts, guidance {scale:g}"):
            prompt = prompts[part.start]
            made, spent = _made(subject, read, prompt, scale, first=part.start * VIDEOS)
            apart += [np.square(real - one.ravel()).mean(axis=1) for one in made]
            nats += spent
        nearest = (np.array(apart) - np.mean(apart, axis=0)).argmin(axis=1)
        named = [captions[clip] for clip in nearest]
        hits = np.array(named).reshape(len(prompts), VIDEOS) == np.array(prompts)[:, None]
        units: Floats = hits.mean(axis=1)
        cost: Floats = np.array(nats).reshape(len(prompts), VIDEOS).mean(axis=1)
        found[f"{scale:g}"] = {
            "share": mean_over(units).as_json(),
            "nats": mean_over(cost).as_json(),
        }
    bearing = sum(captions.count(prompt) for prompt in prompts)
    chance = bearing / len(prompts) / len(captions) if prompts else None
    return {"prompts": prompts, "videos": VIDEOS, "chance": chance, "scales": found}


def _real(subject: Subject) -> tuple[Pixels, list[str]]:
    """Clips of the training split and the captions they bear."""
    videos: list[Pixels] = []
    captions: list[str] = []
    for part in batches(evenly(REAL, len(subject.training)), 32, "training clips"):
        batch = stream.fixed(subject.training, subject.config, part)
        videos.append(batch.video.numpy())
        captions += batch.captions
    return np.concatenate(videos), captions


@torch.no_grad()
def _made(
    subject: Subject, read: Reader, prompt: str, scale: float, first: int
) -> tuple[Pixels, list[float]]:
    """Videos of a prompt, as long as training's clips, and the nats that guidance spent on each."""
    config, device = subject.config, subject.device
    serial = torch.arange(first, first + VIDEOS, device=device)
    ticks = frame_ticks(config.sequence_length, config.fps).to(device).expand(VIDEOS, -1)
    walk = Walk(subject.seed, serial, guidance_scale=scale)
    made = subject.model.generate(ticks, walk, Given(text=read([prompt] * VIDEOS).to(device)))
    return as_pixels(made.frames), made.nats.tolist()
