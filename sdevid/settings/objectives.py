"""Settings of the objectives other than the simulated bound, and of the consistency module."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting


class MatchingConfig(Section):
    """`model_type: sde_matching`: the bound without a solver."""

    frames: int | None = setting(
        None, ge=1, role="objective", help="frames decoded a clip, drawn; null: all of them"
    )
    drift_slope: Literal["zero", "network"] = setting(
        "zero",
        role="objective",
        help="slope of the drift in the posterior's correlation; network: that of each component",
    )


class FollmerConfig(Section):
    """`model_type: follmer`: bridges from each latent frame to the next."""

    noise: float = setting(
        0.71,
        gt=0,
        le=1e6,
        unit="latent units",
        role="objective",
        help="epsilon of a bridge of one frame",
    )
    times: int = setting(
        4,
        ge=1,
        le=65_536,
        role="objective",
        help="times in each bridge at which its drift is regressed",
    )
    steps: int = setting(
        32, ge=1, le=65_536, role="objective", help="solver steps a frame, in sampling"
    )
    drift_bound: float = setting(
        30.0,
        gt=0,
        le=1e6,
        unit="epsilon",
        role="objective",
        help="largest departure of b from a still frame's drift",
    )
    diffusion: Literal["interpolant", "follmer"] = setting(
        "interpolant", role="objective", help="diffusion in sampling"
    )
    anchor: bool = setting(
        False,
        role="architecture",
        help="the bridge also sees a random past frame in training, the first one in sampling",
    )
    anchor_every: int | None = setting(
        None,
        ge=1,
        le=65_536,
        unit="frames",
        role="objective",
        alters_loss=False,
        help="in sampling, the anchor is renewed after so many frames; null: the first stays",
    )
    context_noise: float = setting(
        0.0,
        ge=0,
        le=1e6,
        unit="latent units",
        role="architecture",
        help="largest noise on the frame that a bridge leaves, in training; it is told how much",
    )
    context_noise_told: float = setting(
        0.0,
        ge=0,
        le=1e6,
        unit="latent units",
        role="objective",
        alters_loss=False,
        help="how much noise the bridge is told of in sampling, at most context_noise",
    )
    frame_divergence: float = setting(
        0.1, ge=0, le=1e6, role="objective", help="weight of the frames' KL from N(0, 1)"
    )

    @model_validator(mode="after")
    def _memory_fits(self) -> FollmerConfig:
        if self.anchor_every is not None and not self.anchor:
            raise ValueError(
                f"anchor_every is {self.anchor_every}, but follmer.anchor is false, so no bridge "
                "sees an anchor; set follmer.anchor=true"
            )
        if self.context_noise_told > self.context_noise:
            raise ValueError(
                f"context_noise_told is {self.context_noise_told:g}, but training puts at most "
                f"follmer.context_noise, {self.context_noise:g}, on a frame; give less"
            )
        return self


class ConsistencyConfig(Section):
    """Weights of the consistency module's terms; 0 switches a term off."""

    frame_difference: float = setting(
        0.0, ge=0, le=1e6, role="objective", help="weight of the L1 of frame differences"
    )
    prior_consistency: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="objective",
        help="weight of the rolled prior's distance to the posterior",
    )
    prior_frames: int = setting(
        4, ge=1, le=65_536, role="objective", help="frames that the prior is rolled on"
    )
    futures: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="objective",
        help="weight of the energy score of the prior's decoded futures, in observation scales",
    )
    futures_frames: int = setting(
        4, ge=1, le=65_536, role="objective", help="frames of such a future after the last seen one"
    )
    futures_scales: int = setting(
        1,
        ge=1,
        le=16,
        role="objective",
        help="scales at which a future is scored: pixels, means over 2 x 2, over 4 x 4, ...",
    )
    futures_scored: int | None = setting(
        None,
        ge=1,
        le=65_536,
        role="objective",
        help="frames decoded of such a future, drawn; null: all of them",
    )
    step_halving: float = setting(
        0.0,
        ge=0,
        le=1e6,
        role="objective",
        help="weight of one prior step against two of half its length",
    )
    warp: bool = setting(
        False,
        role="architecture",
        help="warp-and-mask head: x_i = M warp(x_{i-1}, F) + (1 - M) I_i",
    )

    @model_validator(mode="after")
    def _scored_frames_fit(self) -> ConsistencyConfig:
        if self.futures_scored is not None and self.futures_scored > self.futures_frames:
            raise ValueError(
                f"futures_scored is {self.futures_scored}, but a future has {self.futures_frames} "
                "frames (consistency.futures_frames); give fewer, or null for all"
            )
        return self
