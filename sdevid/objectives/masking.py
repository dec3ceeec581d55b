"""What training shows the prior of each clip: some of its frames, and perhaps its caption.

Every draw is a function of the clip's serial, so that one model learns to generate freely, to
carry on, to fill in and to follow a text, the same on any number of ranks.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from sdevid.config import ObservationConfig
from sdevid.models.text import Text
from sdevid.sde.noise import Stream, uniform
from sdevid.types import Serial

Mask = Bool[Tensor, "batch time"]


def first_frames(serial: Serial, frames: int, count: int) -> Mask:
    """Observe the first `count` frames of every clip."""
    return (torch.arange(frames, device=serial.device) < count).expand(len(serial), -1)


def sample_observed(settings: ObservationConfig, seed: int, serial: Serial, frames: int) -> Mask:
    """Draw which frames are observed: none, the first, first and last, or scattered ones.

    No frame in a share `settings.free_fraction` of the clips, first and last in `ends_fraction`,
    scattered ones in `keyframes_fraction`, and the first in the rest.
    """
    index = torch.arange(frames, device=serial.device)
    initial = index < sample_num_initial(settings, seed, serial, frames)[:, None]
    if not settings.ahead:
        return initial
    draws = uniform(seed, serial, Stream.CONTEXT, (4 + frames,))
    most = max(1, min(settings.max_context, (frames - 1) // 2))
    first, last = (1 + (draws[:, k : k + 1] * most).long().clamp(max=most - 1) for k in (1, 2))
    ends = (index < first) | (index >= frames - last)
    scattered = draws[:, 4:] < draws[:, 2:3].clamp(min=1 / frames, max=0.5)
    scattered = (index == (draws[:, 3:4] * frames).long()) | scattered
    kind = draws[:, :1] - settings.free_fraction
    observed = torch.where(kind < settings.ends_fraction, ends, initial)
    beyond = kind - settings.ends_fraction
    is_scattered = (beyond >= 0) & (beyond < settings.keyframes_fraction)
    return torch.where(is_scattered, scattered, observed) & (kind >= 0)


def sample_num_initial(
    settings: ObservationConfig, seed: int, serial: Serial, frames: int
) -> Int64[Tensor, " batch"]:
    """Draw how many initial frames are observed: none of a free clip, else fewest to most."""
    most = min(settings.max_context, frames - 1)
    least = min(settings.min_context, most)
    free, share = uniform(seed, serial, Stream.CONTEXT, (2,)).unbind(1)
    count = (least + (share * (most - least + 1)).long()).clamp(max=most)
    return torch.where(free < settings.free_fraction, 0, count)


def drop_captions(text: Text, drop: float, seed: int, serial: Serial) -> Text:
    """Blank the captions of a share `drop` of the clips, for classifier-free guidance."""
    draw = uniform(seed, serial, Stream.TEXT, (1,))
    return text._replace(mask=text.mask & (draw >= drop))
