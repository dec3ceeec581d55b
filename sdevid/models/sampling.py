"""What sampling asks of a model, and what it gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sdevid.models.growing_noise import GrowingNoise
from sdevid.models.protocols import Likelihood
from sdevid.models.text import Text
from sdevid.transfer import to_device
from sdevid.types import Frames, Serial, Ticks

CHUNK_FRAMES = 64  # generated before they leave the device, which bounds memory


class SamplerConfig(NamedTuple):
    """How a path is solved, and by which noise: that of (seed, serial) for each video."""

    seed: int = 0
    serial: Serial | None = None  # a batch's; None: 0, 1, ... in its order
    steps_per_frame: int | None = None  # None: steps as long as in training, at most
    temperature: float = 1.0  # scales the noise of the birth and along the path
    solver: str | None = None  # None: the training's (sde.solver)
    bridge_diffusion: Literal["interpolant", "follmer"] | None = None  # of follmer's bridge
    guidance_scale: float = 1.0  # of birth and drift, away from what no text, or another, gives
    tolerance: float | None = None  # of the adaptive steps of a torchsde solver
    observation: Likelihood | GrowingNoise | None = None  # also draw frames from it

    def serials(self, batch: Tensor) -> Serial:
        """Give the serials of a batch as long as this tensor, on its device."""
        if self.serial is not None:
            return self.serial
        return torch.arange(len(batch), device=batch.device)


class Conditioning(NamedTuple):
    """What a batch of videos is conditioned on; by default nothing."""

    frames: Frames | None = None  # observed
    frame_ticks: Ticks | None = None  # of the observed frames, rising
    text: Text | None = None
    negative_text: Text | None = None  # what guidance leads away from; None: no text


class Chunk(NamedTuple):
    """Consecutive frames of a batch of videos."""

    frames: Frames
    nats: Float[Tensor, " batch"]  # spent by guidance
    observed: Frames | None = None  # drawn from `SamplerConfig.observation`, if that is set


def start_tick(
    first: Int64[Tensor, "batch 1"], times: Int64[Tensor, "batch observed"]
) -> tuple[Int64[Tensor, "batch 1"], Int64[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Find the tick at which the state starts: of the last observed frame not after `first`.

    Also returns that frame's index, and whether there is one; without one it is `first` itself.
    """
    before, last = times.where(times <= first, -1).max(1, keepdim=True)
    return before.where(before >= 0, first), last[:, 0], before[:, 0] >= 0


def points_from_start(
    ticks: Ticks, frame_ticks: Int64[Tensor, "batch observed"] | None
) -> Int64[Tensor, "batch points"]:
    """Put the tick at which the state starts before `ticks`, on the host.

    The host waits for the device where they lie there.
    """
    ticks = ticks.cpu()
    start = ticks[:, :1]
    if frame_ticks is not None:
        start = start_tick(start, frame_ticks.cpu())[0]
    return torch.cat([start, ticks], dim=1)


def sent(
    ticks: Ticks, conditioning: Conditioning, device: torch.device
) -> tuple[Ticks, Conditioning]:
    """Send times that lie on the host to the device."""
    times = conditioning.frame_ticks
    if times is not None:
        conditioning = conditioning._replace(frame_ticks=to_device(times, device))
    return to_device(ticks, device), conditioning


def join(chunks: Iterable[Chunk]) -> Chunk:
    """Join consecutive chunks to one; the nats add up."""
    parts = list(chunks)
    nats = torch.stack([part.nats for part in parts]).sum(0)
    observed = [part.observed for part in parts if part.observed is not None]
    frames = torch.cat([part.frames for part in parts], dim=1)
    return Chunk(frames, nats, torch.cat(observed, dim=1) if observed else None)
