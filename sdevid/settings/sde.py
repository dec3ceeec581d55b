"""Settings of the latent SDE."""

from __future__ import annotations

from typing import Literal

from sdevid.settings.setting import Section, setting


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
    content_size: int = setting(
        64, ge=1, le=65_536, role="architecture", help="components of the static content code w"
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
    solver: Literal["euler_maruyama"] = setting(
        "euler_maruyama", role="objective", help="scheme that integrates the SDE"
    )
    kernels: Literal["auto", "triton", "reference"] = setting(
        "auto",
        role="runtime",
        alters_loss=True,
        help="implementation of the solver's kernels; auto: Triton on CUDA",
    )
    capture: bool = setting(
        False,
        role="runtime",
        alters_loss=True,
        help="capture a map's training solve as one CUDA graph",
    )
    steps_per_frame: int = setting(
        2, ge=1, le=65_536, role="objective", help="solver steps between two frames"
    )
    noise: Literal["additive", "diagonal", "carried"] = setting(
        "additive",
        role="architecture",
        help="diagonal: the diffusion g may depend on z; carried: shared by particles born near",
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
        1e-2,
        gt=0,
        le=1e6,
        unit="latent units per sqrt(second)",
        role="objective",
        help="smallest diffusion |g|",
    )
    diffusion_start: float = setting(
        0.5,
        gt=0,
        le=1e6,
        unit="latent units per sqrt(second)",
        role="objective",
        help="diffusion |g| before training",
    )
    control_bound: float = setting(
        30.0,
        gt=0,
        le=1e6,
        unit="per sqrt(second)",
        role="objective",
        help="largest |u|; 30 is 10 standard deviations of a step of 1/8 s",
    )

    @property
    def state_size(self) -> int:
        """Components or channels of the whole state."""
        return self.order * self.latent_size
