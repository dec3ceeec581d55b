"""A pose that goes round with the way a thing has walked, and how it is read off frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.particles.placing import crops, relative
from sdevid.models.particles.state import Content, ParticleState
from sdevid.sde.noise import Stream, normal
from sdevid.types import Frames, Serial

if TYPE_CHECKING:
    from sdevid.models.particles.patches import PatchDecoder

FINER = 2  # poses that are compared for each that is painted

Pose = Float[Tensor, "*batch 1"]  # in rounds; whole rounds are all the same


def shares(pose: Pose, count: int) -> Float[Tensor, "*batch poses"]:
    """Weigh the two of `count` painted poses that a pose lies between, linearly; the sum is 1."""
    painted = torch.arange(count, device=pose.device)
    apart = (count * pose - painted).remainder(count)
    return (1 - torch.minimum(apart, count - apart)).clamp(min=0)


def cost(count: int) -> float:
    """Compute the nats that naming one of the compared poses takes, where all are as likely."""
    return math.log(FINER * count)


def drawn(seed: int, serial: Serial, things: int, count: int) -> Float[Tensor, "batch things 1"]:
    """Draw one of the compared poses for each thing."""
    share = torch.special.ndtr(normal(seed, serial, Stream.POSE, (things, 1)))
    chosen: Tensor = (share * FINER * count).floor() / (FINER * count)
    return chosen


@torch.no_grad()
def read(
    decoder: PatchDecoder,
    stride: Float[Tensor, " 1"],
    content: Content,
    seen: Frames,
    places: Float[Tensor, "batch memory things 2"],
    sign: Float[Tensor, "batch 1 1"],
) -> Float[Tensor, "batch things 1"]:
    """Find the pose at the last of the frames `seen` (less their ground) that explains all best.

    Before it a thing has walked from place to place, a round in each `stride` pixels; `sign` is -1
    where the frames run back in time. No gradient passes: a pose learns from what it then paints.
    """
    count, memory = FINER * decoder.poses, seen.shape[1]
    steps = places.diff(dim=1)
    walked = steps.norm(dim=-1, keepdim=True).flip(1).cumsum(1).flip(1)
    behind = torch.cat([walked, torch.zeros_like(walked[:, :1])], dim=1) / stride
    velocity = sign[:, None] * torch.cat([steps[:, :1], steps], dim=1)
    tried = torch.arange(count, device=seen.device)[:, None, None, None] / count
    pose = tried - (sign[:, None] * behind)[:, None]  # (batch, tried, memory, things, 1)
    where = torch.cat([places, velocity], dim=-1)[:, None].expand(-1, count, -1, -1, -1)
    states: ParticleState = torch.cat([where, pose], dim=-1)
    shown = decoder.shown(states.flatten(1, 2), content)
    ground = content.ground.mean((2, 3)).repeat_interleave(count * memory, 0)
    painted = torch.unflatten(relative(shown.flatten(0, 1), ground), 0, (-1, count, memory))
    there = crops(seen.flatten(0, 1), places.flatten(0, 1), painted.shape[-1])
    there = torch.unflatten(there, 0, (-1, 1, memory))
    error = (painted[..., :-1, :, :] - there).square().sum((2, 4, 5, 6))  # (batch, tried, things)
    return error.argmin(1)[..., None] / count
