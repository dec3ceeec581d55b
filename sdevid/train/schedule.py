"""What changes over a run, as functions of the clips trained on: any world size, the same run."""

from __future__ import annotations

import math

from sdevid.config import Config


def learning_rate(clips: int, total: int, config: Config) -> float:
    """Compute the learning rate of the step that starts after `clips` of `total` clips.

    Rises linearly over `warmup_clips`, its first step already above 0, then follows half a cosine
    down to `final_learning_rate_ratio` of the peak at `total`.
    """
    seen = clips + config.batch_size
    if seen < config.warmup_clips:
        return config.learning_rate * seen / config.warmup_clips
    decay = max(1, total - config.warmup_clips)
    done = min(1.0, max(0, clips - config.warmup_clips) / decay)
    final = config.final_learning_rate_ratio
    return config.learning_rate * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)


def kl_weight(clips: int, total: int, config: Config) -> float:
    """Compute the weight of the KL terms: linear in clips from `kl_weight_start` to 1.

    Exactly 1 from `kl_warmup_fraction` of the run on, so that the bound itself is trained.
    """
    rise = config.kl_warmup_fraction * total
    if clips >= rise:
        return 1.0
    return config.kl_weight_start + (1 - config.kl_weight_start) * clips / rise
