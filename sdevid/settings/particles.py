"""Settings of a latent of particles."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator

from sdevid.settings.setting import Section, setting


class ParticlesConfig(Section):
    """`sde.latent: particles`: things with places in pixels, drawn over a static ground."""

    count: int = setting(
        64, ge=1, le=1024, role="architecture", help="particles born in the picture; a square n^2"
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
    presence: Literal["static", "depth"] = setting(
        "static",
        role="architecture",
        help="static: fixed at birth; depth: follows a mean-reverting depth of small noise",
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
    length_start: float = setting(
        4.0,
        gt=0,
        le=1e6,
        role="architecture",
        help="length of carried noise before training",
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

    @field_validator("count")
    @classmethod
    def _square(cls, count: int) -> int:
        if math.isqrt(count) ** 2 != count:
            raise ValueError(
                f"is {count}, but particles are born on a square grid, so it must be a square "
                f"number; {math.isqrt(count) ** 2} or {(math.isqrt(count) + 1) ** 2} is near"
            )
        return count

    @field_validator("ramp")
    @classmethod
    def _rises(cls, ramp: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= ramp[0] < ramp[1] <= 1:
            raise ValueError(
                f"is {list(ramp)}, but must be two rising shares of the run, such as [0.3, 0.5]; "
                "a penalty or a detailed ground from the first step removes every particle"
            )
        return ramp
