"""Frames to frame tokens: convolutions that halve the side, down to the latent map."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.initial_weights import initial_weights
from sdevid.models.keyframes import Gap, Keyframes, motion_between
from sdevid.models.layers import velocities
from sdevid.models.transport import AXES, MIDDLE, Motion, MovingFrame
from sdevid.types import Frames, Ticks

Sides = tuple[int, int] | None  # rows and columns of a map latent; None for a vector
Tokens = Float[Tensor, "batch time cells features"]  # cells: 1, or the map's places row by row
Maps = tuple[Float[Tensor, "_ _ _ _"], ...]  # (batch, channels, height, width), finest first


class LastFrame(NamedTuple):
    """What decoder and start see of the last observed frame of each clip, 0 where it has none."""

    maps: Maps = ()  # features, with `encoder.skip`
    frame: Float[Tensor, "batch _ _ _"] | None = None  # less the encoder's middle, beside them
    moving: MovingFrame | None = None  # with `encoder.transport`
    velocity: Float[Tensor, "batch 2 rows columns"] | None = None  # of layers; cells a frame
    keyframes: Keyframes | None = None  # with `encoder.transport` where frames may lie ahead
    gap: Gap | None = None  # of them, around the times that are decoded

    def at(self, ticks: Ticks) -> LastFrame:
        """Select what was observed around each of `ticks`, which are to be decoded."""
        if self.keyframes is None:
            return self
        return self._replace(gap=self.keyframes.around(ticks))

    def rows(self, index: Tensor | slice) -> LastFrame:
        """Select clips."""
        maps = tuple(each[index] for each in self.maps)
        frame = None if self.frame is None else self.frame[index]
        moving = None if self.moving is None else self.moving.rows(index)
        velocity = None if self.velocity is None else self.velocity[index]
        keyframes = None if self.keyframes is None else self.keyframes.rows(index)
        return LastFrame(maps, frame, moving, velocity, keyframes)


class Carried(NamedTuple):
    """What the velocities of layers are read from."""

    frames: Frames
    times: Float[Tensor, "batch time"]  # training frames
    layers: int
    sides: tuple[int, int]  # of the state's map

    def velocity(self, index: Int64[Tensor, " batch"]) -> Float[Tensor, "batch 2 rows columns"]:
        """Estimate how fast the layers of frame `index` of each clip move, cells a frame."""
        rows = torch.arange(len(index), device=index.device)
        before = (index - 1).clamp(min=0)
        since = self.times[rows, index] - self.times[rows, before]
        frames = self.frames.float()
        return velocities(frames[rows, before], frames[rows, index], since, self.layers, self.sides)


class EncodedFrames(NamedTuple):
    """Tokens of frames, and what else may be asked of the last observed one."""

    tokens: Tokens
    maps: tuple[Float[Tensor, "batch time _ _ _"], ...] = ()  # channels, height, width
    pictures: Frames | None = None  # less the encoder's middle
    motion: Float[Tensor, "batch time 2 rows columns"] | None = None  # pixels a training frame
    carried: Carried | None = None  # with `encoder.carried_layers`
    frames: Frames | None = None  # as given, with `encoder.transport` where some may lie ahead


class Observed(NamedTuple):
    """Which of a clip's encoded frames the prior may see, and when they were."""

    mask: Bool[Tensor, "batch time"]
    ticks: Ticks

    @classmethod
    def every(cls, ticks: Ticks) -> Observed:
        """Take every frame as observed."""
        return cls(torch.ones_like(ticks, dtype=torch.bool), ticks)


def last_frame(
    frames: EncodedFrames, index: Int64[Tensor, " batch"], exists: Bool[Tensor, " batch"]
) -> LastFrame | None:
    """Select one frame of each clip, 0 where it has none; None if nothing else is asked of it."""
    if not frames.maps and frames.motion is None:
        return None
    rows = torch.arange(len(index), device=index.device)
    there = exists.view(-1, 1, 1, 1)
    maps = tuple(maps[rows, index] * there for maps in frames.maps)
    if frames.carried is not None:
        return LastFrame(maps, velocity=frames.carried.velocity(index) * there)
    picture = None if frames.pictures is None else frames.pictures[rows, index] * there
    if frames.motion is None or picture is None:
        return LastFrame(maps, picture)
    return LastFrame(maps, moving=MovingFrame(picture, frames.motion[rows, index] * there))


def widths(config: Config) -> list[int]:
    """List the channels of each stage, from the pictures' size down to the latent map."""
    stages = int(math.log2(min(config.picture[1:]) // config.encoder.map_size))
    return [config.encoder.channels * 2 ** min(i, 3) for i in range(stages + 1)]


def norm(channels: int) -> nn.GroupNorm:
    """Build a group norm with at least eight channels a group: never over the batch."""
    return nn.GroupNorm(max(1, channels // 8), channels)


class Residual(nn.Module):
    """x plus two 3 x 3 convolutions of it, the last of which starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        first = nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.Sequential(nn.SiLU(), first, norm(channels), nn.SiLU(), last)

    def forward(
        self, x: Float[Tensor, "frames channels height width"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Add the two convolutions of `x` to it."""
        out: Tensor = x + self.layers(x)
        return out


class FrameEncoder(nn.Module):
    """Encodes each frame to one token (vector latent) or one token a cell (map latent).

    With `encoder.differences` a frame comes with its change from the stored frame before it, 0 for
    the first. With `encoder.transport` a token also holds its cell's motion; not where frames may
    lie ahead, since the motion at one of them would show frames that were not observed. Unobserved
    values (NaN) are read as grey.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        channels = widths(config)
        self.differences = config.encoder.differences
        inputs = config.picture.channels * (2 if self.differences else 1)
        self.middle = MIDDLE if config.encoder.frozen is None else 0.0  # of what it sees
        layers: list[nn.Module] = [nn.Conv2d(inputs, channels[0], 3, padding=1)]
        if len(channels) > 1:
            layers = []
            for before, after in zip([inputs, *channels[1:-1]], channels[1:], strict=True):
                layers += [nn.Conv2d(before, after, 4, 2, 1), norm(after), nn.SiLU()]
        layers += [Residual(channels[-1]) for _ in range(config.encoder.residual)]
        self.stem = nn.Sequential(*layers)
        self.skip, self.layers = config.encoder.skip, config.encoder.carried_layers
        self.sides = config.map_shape
        self.is_map = config.sde.latent == "map"
        size = channels[-1] * (1 if self.is_map else math.prod(config.map_shape))
        self.token = nn.Linear(size, config.encoder.features)
        self.motion = Motion(config.map_shape) if config.encoder.transport else None
        self.ahead = config.observation.ahead
        is_told = self.motion is not None and not self.ahead
        with initial_weights(config.seed, "encoder.motion"):
            self.motion_token = nn.Linear(AXES, config.encoder.features) if is_told else None

    def forward(self, frames: Frames, times: Float[Tensor, "batch time"]) -> EncodedFrames:
        """Encode (batch, time, channels, height, width) as (batch, time, cells, features).

        `times` of the frames, in training frames, say how fast things move.
        """
        batch, time = frames.shape[:2]
        motion = None
        if self.motion is not None and self.motion_token is not None:
            motion = self.motion(frames, times)
        given = frames if self.motion is not None and self.ahead else None
        frames = frames.nan_to_num(nan=self.middle)
        seen = pictures = frames - self.middle
        if self.differences and frames.shape[1]:
            change = torch.cat([torch.zeros_like(frames[:, :1]), frames.diff(dim=1)], dim=1)
            seen = torch.cat([seen, change], dim=2)
        cells, maps = seen.flatten(0, 1), []
        for layer in self.stem:
            cells = layer(cells)
            if isinstance(layer, nn.SiLU):
                maps.append(cells)
        pattern = "(b t) c h w -> b t (h w) c" if self.is_map else "(b t) c h w -> b t 1 (c h w)"
        tokens: Tensor = self.token(rearrange(cells, pattern, b=batch))
        if motion is not None and self.motion_token is not None:
            tokens = tokens + self.motion_token(rearrange(motion, "b t c h w -> b t (h w) c"))
        if not self.skip:
            return EncodedFrames(tokens, pictures=pictures, motion=motion, frames=given)
        stages = maps or [cells]  # frames as small as the map have one stage
        carried = None
        if self.layers:
            carried = Carried(frames, times, self.layers, self.sides)
            there = torch.ones_like(frames[:, :, :1])
            stages = [torch.cat([frames, there], dim=2).flatten(0, 1), *stages]
        skips = tuple(each.unflatten(0, (batch, time)) for each in stages)
        return EncodedFrames(tokens, skips, pictures, motion, carried, given)

    def last_frame(
        self,
        encoded: EncodedFrames,
        index: Int64[Tensor, " batch"],
        exists: Bool[Tensor, " batch"],
        seen: Observed,
    ) -> LastFrame | None:
        """Select what is asked of the last observed frame of each clip, 0 where it has none."""
        last = last_frame(encoded, index, exists)
        if self.motion is None or encoded.frames is None or encoded.pictures is None:
            return last
        motion = motion_between(self.motion, encoded.frames, seen.mask)
        keyframes = Keyframes((encoded.pictures, *encoded.maps), seen.mask, seen.ticks, motion)
        rows, there = torch.arange(len(index), device=index.device), exists.view(-1, 1, 1, 1)
        frame, velocity = encoded.pictures[rows, index], keyframes.velocity(index)
        moving = MovingFrame(frame * there, velocity * there)
        return (last or LastFrame())._replace(moving=moving, keyframes=keyframes)


def lay_out(tokens: Float[Tensor, "*batch cells features"], sides: Sides) -> Tensor:
    """Lay tokens out as the latent: (..., features), or (..., features, *sides) for a map."""
    if sides is None:
        return tokens.squeeze(-2)
    return torch.unflatten(tokens.transpose(-1, -2), -1, sides)
