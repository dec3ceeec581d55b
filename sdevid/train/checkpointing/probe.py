"""A fixed batch whose loss tells whether a loaded model is the one that was saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch

from sdevid.config import Config, settings_by_path
from sdevid.errors import UserError
from sdevid.train.engine import Engine
from sdevid.types import Batch

CLIPS = 2


def batch(config: Config) -> Batch:
    """Draw clips of noise, of the size of those trained on; always the same ones."""
    picture, frames = config.picture, config.sequence_length
    generator = torch.Generator().manual_seed(0)
    shape = (CLIPS, frames, *picture[1:], picture.channels)
    if config.encoder.frozen is None:
        video = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    else:
        video = torch.randn(shape, generator=generator).half()
    return Batch(
        video=video,
        ticks=config.frame_ticks(frames).expand(CLIPS, -1).contiguous(),
        serial=torch.arange(CLIPS),
        keys=tuple(f"probe{i}" for i in range(CLIPS)),
        captions=("",) * CLIPS,
    )


def comparable(changed: Iterable[str]) -> bool:
    """Check whether a batch's loss is unchanged by changes of these settings (dotted names)."""
    known = settings_by_path()
    return all(name in known and not known[name].alters_loss for name in changed)


def tolerance(config: Config) -> float:
    """Bound the relative difference of two losses of the same weights, on any device.

    A float32 sum over the n values of the batch errs by about sqrt(n) half-units in the last place;
    networks in bf16 have 2**-8 as theirs.
    """
    values = CLIPS * config.values_per_clip
    return 2.0**-6 if config.precision == "bf16" else max(1e-5, math.sqrt(values) * 2.0**-24)


def score(engine: Engine) -> float | None:
    """Compute the probe batch's loss under the engine's weights, None where it is not finite.

    Every rank scores it whole, so there is nothing to reduce.
    """
    loss = engine.score(batch(engine.config))
    return loss if math.isfinite(loss) else None


def check_probe(engine: Engine, saved: float | None, folder: Path) -> None:
    """Raise UserError, on every rank, where the probe batch's loss is no longer `saved`."""
    if saved is None:
        return
    losses = engine.world.gather(score(engine))
    allowed = tolerance(engine.config) * max(1.0, abs(saved))
    for rank, loss in enumerate(losses):
        if loss is None or abs(loss - saved) > allowed:
            raise UserError(
                f"checkpoint {folder} was loaded, but on rank {rank} its probe batch has a loss "
                f"of {loss} where {saved} was stored: float32 sums in another order differ by "
                f"{allowed:.2g} at most. The code, a library or the hardware computes something "
                "else; go back to what wrote it, or set `probe` to null in its manifest.json"
            )
