"""Settings of the latent SDE."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting

Scheme = Literal[
    "euler_maruyama",
    "milstein",
    "heun",
    "midpoint",
    "srk",
    "reversible_heun",
    "torchsde/euler",
    "torchsde/milstein",
    "torchsde/srk",
    "torchsde/euler_heun",
    "torchsde/heun",
    "torchsde/midpoint",
    "torchsde/reversible_heun",
]


class SDEConfig(Section):
    """The latent SDE and how it is solved."""

    latent: Literal["vector", "map", "particles"] = setting(
        "vector", role="architecture", help="shape of the state: a vector, map cells, or particles"
    )
    latent_size: int = setting(
        64, ge=1, le=65_536, role="architecture", help="components of a vector, channels of a map"
    )
    order: Literal[1, 2] = setting(
        1, role="architecture", help="2: positions, which are decoded, and as many velocities"
    )
    start: Literal["birth", "gaussian"] = setting(
        "gaussian",
        role="architecture",
        help="p(w, z_0 | c): the end of an SDE from nothing, or a Gaussian (mixture)",
    )
    start_components: int = setting(
        1, ge=1, le=4096, role="architecture", help="Gaussians in the mixture p(z_0 | c)"
    )
    content: Literal["vector", "map"] = setting(
        "vector",
        role="architecture",
        help="shape of the static content w: a vector, or a map read cell by cell",
    )
    content_size: int = setting(
        64, ge=1, le=65_536, role="architecture", help="components, or channels, of the content w"
    )
    content_from: float = setting(
        0.0,
        ge=0,
        lt=1,
        role="objective",
        help="share of the run before which w tells nothing, so that the state learns what moves",
    )
    hidden: int = setting(
        256,
        ge=1,
        le=65_536,
        role="architecture",
        help="width of the drift, control and diffusion networks",
    )
    depth: int = setting(
        2,
        ge=1,
        le=1024,
        role="architecture",
        help="hidden layers of each network, or blocks of a transformer",
    )
    backbone: Literal["plain", "transformer"] = setting(
        "plain",
        role="architecture",
        help="plain: linear layers for a vector, convolutions for a map",
    )
    heads: int = setting(
        4, ge=1, le=4096, role="architecture", help="attention heads of the state transformer"
    )
    checkpoint: bool = setting(
        False, role="runtime", help="recompute activations in the backward pass to save memory"
    )
    solver: Scheme = setting(
        "euler_maruyama",
        role="objective",
        help="scheme that integrates the SDE; all but euler_maruyama train on Girsanov's bound",
    )
    gradient: Literal["backprop", "checkpoint", "reversible"] = setting(
        "backprop",
        role="runtime",
        help="keep every step; keep the frames' states and solve again; or solve backwards",
    )
    kernels: Literal["auto", "triton", "reference"] = setting(
        "auto",
        role="runtime",
        alters_loss=True,
        help="implementation of the solver's kernels; auto: Triton on CUDA",
    )
    steps_per_frame: int = setting(
        2, ge=1, le=65_536, role="objective", help="solver steps between two frames"
    )
    conditions: Literal["mean", "cells"] = setting(
        "mean",
        role="architecture",
        help="context told to drift and diffusion of a map: its mean, or to each cell its own too",
    )
    noise: Literal["additive", "diagonal", "carried"] = setting(
        "additive",
        role="architecture",
        help="diagonal: g may depend on z, with one turn; carried: shared by particles born near",
    )
    friction_start: float = setting(
        0.0,
        ge=0,
        le=1e6,
        unit="per frame",
        role="architecture",
        help="how fast velocities die away before training; 0: no such term in the drift",
    )
    anchor: bool = setting(
        False,
        role="architecture",
        help="the drift also sees the state at the path's start, or at a later frame of sampling",
    )
    anchor_every: int | None = setting(
        None,
        ge=1,
        le=65_536,
        unit="frames",
        role="objective",
        alters_loss=False,
        help="in sampling, the anchor is renewed after so many frames; null: the start stays",
    )
    posterior_width: Literal["chain", "continuous"] = setting(
        "chain",
        role="architecture",
        help="chain: exact ELBO of the Euler-Maruyama chain; continuous: Girsanov's bound",
    )
    posterior_drift: Literal["control", "own"] = setting(
        "control", role="architecture", help="h + g u, or a separate drift f"
    )
    diffusion_floor: float = setting(
        3.5e-3,
        gt=0,
        le=1e6,
        unit="latent units per sqrt(frame)",
        role="objective",
        help="smallest diffusion |g|",
    )
    diffusion_start: float = setting(
        0.177,
        gt=0,
        le=1e6,
        unit="latent units per sqrt(frame)",
        role="objective",
        help="diffusion |g| before training",
    )
    control_bound: float = setting(
        10.0,
        gt=0,
        le=1e6,
        unit="per sqrt(frame)",
        role="objective",
        help="largest |u|; 10 is 10 standard deviations of a step of one frame",
    )

    @model_validator(mode="after")
    def _cells_are_there(self) -> SDEConfig:
        if self.latent == "map":
            return self
        if self.conditions == "cells":
            raise ValueError(
                f"conditions is cells, but sde.latent is {self.latent}; set sde.latent=map, or "
                "sde.conditions=mean"
            )
        if self.content == "map":
            raise ValueError(
                f"content is map, but sde.latent is {self.latent}, and a content map has the "
                "places of a map latent; set sde.latent=map, or sde.content=vector"
            )
        return self

    @model_validator(mode="after")
    def _content_is_drawn(self) -> SDEConfig:
        if self.content_from and self.latent == "particles":
            raise ValueError(
                f"content_from is {self.content_from:g}, but sde.latent is particles, whose "
                "content is read from a frame; leave it at 0"
            )
        return self

    @model_validator(mode="after")
    def _velocities_are_there(self) -> SDEConfig:
        if self.friction_start and self.order == 1:
            raise ValueError(
                f"friction_start is {self.friction_start:g}, but sde.order is 1, without "
                "velocities; set sde.order=2, or sde.friction_start=0"
            )
        return self

    @model_validator(mode="after")
    def _anchor_is_there(self) -> SDEConfig:
        if self.anchor_every is not None and not self.anchor:
            raise ValueError(
                f"anchor_every is {self.anchor_every}, but sde.anchor is false, so no drift sees "
                "an anchor; set sde.anchor=true"
            )
        return self

    @model_validator(mode="after")
    def _solver_fits(self) -> SDEConfig:
        reason = self.unfit(self.solver)
        if reason is not None:
            raise ValueError(f"solver is {self.solver}, but {reason}")
        is_torchsde = self.solver.startswith("torchsde/")
        if self.gradient == "reversible" and not (is_torchsde or self.solver == "reversible_heun"):
            raise ValueError(
                f"gradient is reversible, but solver is {self.solver}, whose steps cannot be "
                "undone; set solver=reversible_heun, or gradient=checkpoint"
            )
        if self.gradient == "checkpoint" and is_torchsde:
            raise ValueError(
                f"gradient is checkpoint, but solver is {self.solver}, and torchsde keeps every "
                "step or solves backwards; set gradient=backprop or gradient=reversible"
            )
        return self

    def unfit(self, solver: str) -> str | None:
        """Say why `solver` cannot solve this SDE, or None if it can."""
        if self.order == 2 and solver != "euler_maruyama":
            return (
                "a model of sde.order 2 has no noise on its positions and takes euler_maruyama "
                "alone"
            )
        if self.noise == "diagonal" and solver == "srk":
            return (
                "it does not take the model's noise (sde.noise is diagonal); milstein and heun do"
            )
        return None

    @property
    def state_size(self) -> int:
        """Components or channels of the whole state."""
        return self.order * self.latent_size
