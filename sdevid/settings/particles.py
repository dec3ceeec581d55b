"""Settings of a latent of particles."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator, model_validator

from sdevid.settings.setting import Section, setting

MOST_THINGS = 16  # that paint patches


class ParticlesConfig(Section):
    """`sde.latent: particles`: things with places in pixels, drawn over a static ground."""

    count: int = setting(
        64,
        ge=1,
        le=1024,
        role="architecture",
        help="particles born in the picture; a square n^2, or with patch any number up to 16",
    )
    patch: int = setting(
        0,
        ge=0,
        le=1024,
        role="architecture",
        help="side of the patch that each particle paints, a multiple of 4; 0: a blob",
        unit="pixel",
    )
    views: int = setting(
        1,
        ge=1,
        le=64,
        role="architecture",
        help="patches of a thing, mixed by its velocity: what it shows as it turns",
    )
    poses: int = setting(
        1,
        ge=1,
        le=64,
        role="architecture",
        help="patches of each view, which take turns as a thing walks; 1: it keeps one pose",
    )
    stride_start: float = setting(
        16.0,
        gt=0,
        le=1e6,
        role="architecture",
        help="way on which all poses are gone through once, before training",
        unit="pixel",
    )
    memory: int = setting(
        5,
        ge=2,
        le=64,
        role="architecture",
        help="last observed frames from which things that paint patches are read",
        unit="frames",
    )
    sought: Literal["patch", "middle"] = setting(
        "patch",
        role="architecture",
        help="how things are found: by their patch; middle: as the middle of what differs from "
        "the ground",
    )
    walls: bool = setting(
        False, role="architecture", help="learnt walls around the field, which reflect things"
    )
    ground: Literal["painted", "level"] = setting(
        "painted",
        role="architecture",
        help="painted: read from the observed frame; level: its median colour",
    )
    ring: bool = setting(
        False, role="architecture", help="further particles outside the picture, which may come in"
    )
    appearance: int = setting(
        6, ge=1, le=256, role="architecture", help="channels that say how a particle looks"
    )
    hidden: int = setting(
        64, ge=4, le=4096, role="architecture", help="width of the networks that read and move them"
    )
    features: int = setting(
        24, ge=4, le=1024, role="architecture", help="channels of the map the posterior reads"
    )
    painter: int = setting(
        24, ge=4, le=1024, role="architecture", help="channels of the convolutions that paint"
    )
    presence: Literal["static", "depth", "always"] = setting(
        "static",
        role="architecture",
        help="static: fixed at birth; depth: mean-reverting, of small noise; always: with patch, 1",
    )
    depth_noise: float = setting(
        0.25,
        gt=0,
        le=1e6,
        role="architecture",
        help="most noise of the depth, logits",
        unit="1/sqrt(frame)",
    )
    lookaround: bool = setting(
        True, role="architecture", help="the posterior also reads the frames before and after next"
    )
    diffusion_start: float = setting(
        1.6, gt=0, le=1e6, role="architecture", help="|g| before training", unit="pixel/sqrt(frame)"
    )
    diffusion_from: float = setting(
        0.0,
        ge=0,
        lt=1,
        role="objective",
        help="first share of the run, in which |g| stays what it is before training",
    )
    drift_by_place: bool = setting(
        False,
        role="architecture",
        help="for wells and pulls: sines of the place add to the drift, which then learns from "
        "the path's divergence alone",
    )
    friction_start: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="architecture",
        help="rate at which a velocity fades, before training; 0: none beside the drift's network",
        unit="1/frame",
    )
    jitter_start: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="architecture",
        help="noise of the places beside that of the velocities, before training; 0: none",
        unit="pixel/sqrt(frame)",
    )
    length_start: float = setting(
        4.0,
        gt=0,
        le=1e6,
        role="architecture",
        help="length of carried noise before training",
        unit="pixel",
    )
    group: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="objective",
        alters_loss=False,
        help="reach within which particles that draw one thing move as one, in what is generated; "
        "0: each moves on its own",
        unit="pixel",
    )
    splat_start: float = setting(
        2.0,
        gt=0,
        le=1e6,
        role="architecture",
        help="a particle's radius before training",
        unit="pixel",
    )
    precision_start: float = setting(
        0.135,
        gt=0,
        le=1e6,
        role="architecture",
        help="precision of the places that the posterior reads, before training",
        unit="pixel^-2",
    )
    presence_penalty: float = setting(
        4.0,
        ge=0,
        le=1e6,
        role="objective",
        help="for a particle's presence in a frame",
        unit="nats",
    )
    ramp: tuple[float, float] = setting(
        (0.3, 0.5),
        role="objective",
        help="shares of the run between which the penalties and the ground's detail come in",
    )
    still: float = setting(
        0.0,
        ge=0,
        lt=1,
        role="objective",
        help="first share of the run, in which one frame a clip is drawn, to learn to read it",
    )
    whiteness: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="objective",
        help="for the squared correlation of the posterior's successive steps",
        unit="nats",
    )

    @property
    def side(self) -> int:
        """Particles along a side of the grid on which they are born."""
        return math.isqrt(self.count)

    @model_validator(mode="after")
    def _count_fits(self) -> ParticlesConfig:
        if not self.patch and math.isqrt(self.count) ** 2 != self.count:
            raise ValueError(
                f"particles.count is {self.count}, but particles are born on a square grid, so it "
                f"must be a square number; {math.isqrt(self.count) ** 2} or "
                f"{(math.isqrt(self.count) + 1) ** 2} is near; with particles.patch any number fits"
            )
        if self.patch and self.count > MOST_THINGS:
            raise ValueError(
                f"particles.count is {self.count}, but things with a patch (particles.patch is "
                f"{self.patch}) are read one after the other, {MOST_THINGS} at most; give fewer"
            )
        return self

    @field_validator("ramp")
    @classmethod
    def _rises(cls, ramp: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= ramp[0] < ramp[1] <= 1:
            raise ValueError(
                f"is {list(ramp)}, but must be two rising shares of the run, such as [0.3, 0.5]; "
                "a penalty or a detailed ground from the first step removes every particle"
            )
        return ramp
