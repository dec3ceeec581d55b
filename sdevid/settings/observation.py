"""Settings of the likelihood and of which frames are observed in training."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting


class ObservationConfig(Section):
    """p(x | D(w, z)): how a frame is scored against the decoded one."""

    likelihood: Literal["laplace", "gaussian", "two_part"] = setting(
        "gaussian",
        role="architecture",
        help="distribution of a pixel around the decoded one; two_part: zero or not, and how much",
    )
    scale: float = setting(
        0.2,
        gt=0,
        le=1e6,
        unit="pixels in [0, 1], or latents",
        role="objective",
        help="scale of the likelihood; with encoder.frozen, where the fitted ones start",
    )
    fit_scale: bool = setting(
        False,
        role="architecture",
        help="learn the scale from observation.scale on, once the KL has its full weight",
    )
    scale_floor: float = setting(
        0.01,
        gt=0,
        le=1e6,
        unit="pixels in [0, 1]",
        role="objective",
        help="what a learnt scale never falls below",
    )
    zero: float = setting(
        0.0,
        ge=0,
        lt=1,
        unit="pixels in [0, 1]",
        role="objective",
        help="of two_part: values up to it count as zero",
    )
    mean: float = setting(
        0.5,
        gt=0,
        lt=1,
        unit="pixels in [0, 1]",
        role="objective",
        alters_loss=False,
        help="mean value of the data, at which the decoder starts",
    )
    max_context: int = setting(
        5,
        ge=0,
        le=65_536,
        unit="frames",
        role="objective",
        help="most frames that the prior is shown in training",
    )
    min_context: int = setting(
        1,
        ge=1,
        le=65_536,
        unit="frames",
        role="objective",
        help="fewest frames that it is shown, where it is shown any; 2 or more tell a velocity",
    )
    free_fraction: float = setting(
        0.25, role="objective", help="share of clips for which the prior is shown no frame"
    )
    ends_fraction: float = setting(
        0.0, role="objective", help="share of clips of which it is shown first and last frames"
    )
    keyframes_fraction: float = setting(
        0.0, role="objective", help="share of clips of which it is shown scattered frames"
    )

    @property
    def ahead(self) -> bool:
        """Whether frames that lie ahead may be observed."""
        return self.ends_fraction + self.keyframes_fraction > 0

    @model_validator(mode="after")
    def _floor_below_scale(self) -> ObservationConfig:
        if self.fit_scale and not self.scale_floor < self.scale:
            raise ValueError(
                f"scale_floor is {self.scale_floor:g}, but a learnt scale starts at scale "
                f"{self.scale:g}, above its floor; give a lower floor"
            )
        return self

    @model_validator(mode="after")
    def _shares(self) -> ObservationConfig:
        shares = (self.free_fraction, self.ends_fraction, self.keyframes_fraction)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                "free_fraction, ends_fraction and keyframes_fraction are "
                f"{', '.join(f'{share:g}' for share in shares)}, but they are shares of all clips: "
                "0 or more each, at most 1 together"
            )
        return self
