"""How video is generated from a model, whatever it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplerConfig:
    """How a path is solved in sampling, and by which noise."""

    seed: int = 0
    temperature: float = 1.0  # scales the noise along the path
    steps_per_frame: int | None = None  # None: steps as long as in training, at most
    solver: str | None = None  # None: the training's (sde.solver)
    tolerance: float | None = None  # of the adaptive steps of a torchsde solver
    bridge_diffusion: Literal["interpolant", "follmer"] | None = None  # of follmer's bridge
    guidance_scale: float = 1.0  # of the drift, away from what no text, or another, would give
