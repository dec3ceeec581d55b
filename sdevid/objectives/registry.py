"""The objectives by name: classes of model and objective, and what each of them can do.

Settings are checked against this table, so it stands on the standard library alone; the classes
are imported when they are asked for. A new objective is its two files and an entry here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sdevid.models.video_model import VideoModel
    from sdevid.objectives.clip_objective import ClipObjective

ModelType = Literal["latent_sde", "sde_matching", "follmer"]


@dataclass(frozen=True)
class Need:
    """A setting that an objective requires to have one value."""

    setting: str  # with dots
    value: float
    reason: str  # completes "model_type is NAME, which ..."


@dataclass(frozen=True)
class Capabilities:
    """What an objective offers to training, sampling and evaluation."""

    has_bound: bool  # its terms hold `elbo`, a lower bound on log p(x)
    simulates: bool  # training solves the posterior's SDE
    weighs_paths: bool = False  # a path of its posterior has a density: importance weights
    schemes: tuple[str, ...] | None = None  # SDE solvers in sampling; None: every one
    sampling_options: tuple[str, ...] = ()  # options of sampling that others do not take
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Entry:
    """An objective: where its classes are (module:class), and its capabilities."""

    model: str
    objective: str
    capabilities: Capabilities

    def model_class(self) -> type[VideoModel]:
        """Import the class of the model."""
        model: type[VideoModel] = _imported(self.model)
        return model

    def objective_class(self) -> type[ClipObjective]:
        """Import the class of the objective."""
        objective: type[ClipObjective] = _imported(self.objective)
        return objective


_FIRST_ORDER = Need(
    "sde.order", 1, "has paths whose positions are not the integral of their velocities"
)
_NO_PRIOR = "has no prior SDE to step"
_NOT_OF_PARTICLES = "is not defined for sde.latent particles"

ENTRIES: dict[ModelType, Entry] = {
    "latent_sde": Entry(
        model="sdevid.models.latent_sde:LatentSDE",
        objective="sdevid.objectives.latent_sde:LatentSDEObjective",
        capabilities=Capabilities(has_bound=True, simulates=True, weighs_paths=True),
    ),
    "sde_matching": Entry(
        model="sdevid.models.matched_sde:MatchedSDE",
        objective="sdevid.objectives.sde_matching:SDEMatchingObjective",
        capabilities=Capabilities(
            has_bound=True,
            simulates=False,
            weighs_paths=True,
            needs=(
                _FIRST_ORDER,
                Need("sde.anchor", False, "simulates no path whose start its drift could see"),
            ),
        ),
    ),
    "follmer": Entry(
        model="sdevid.models.follmer:Follmer",
        objective="sdevid.objectives.follmer:FollmerObjective",
        capabilities=Capabilities(
            has_bound=False,
            simulates=False,
            schemes=("euler_maruyama",),
            sampling_options=("bridge_diffusion",),
            needs=(
                _FIRST_ORDER,
                Need("sde.anchor", False, _NO_PRIOR),
                Need("consistency.prior_consistency", 0.0, _NO_PRIOR),
                Need("consistency.step_halving", 0.0, _NO_PRIOR),
                Need("consistency.futures", 0.0, _NO_PRIOR),
            ),
        ),
    ),
}


PARTICLES: dict[ModelType, Entry] = {  # with sde.latent: particles
    "latent_sde": Entry(
        model="sdevid.models.particles.model:ParticleSDE",
        objective="sdevid.objectives.particles:ParticleObjective",
        capabilities=Capabilities(
            has_bound=True,
            simulates=False,
            schemes=("euler_maruyama",),
            needs=(
                Need("sde.anchor", False, _NOT_OF_PARTICLES),
                Need("sde.friction_start", 0.0, "has particles.friction_start instead"),
                Need("consistency.prior_consistency", 0.0, _NOT_OF_PARTICLES),
                Need("consistency.step_halving", 0.0, _NOT_OF_PARTICLES),
                Need("consistency.futures", 0.0, _NOT_OF_PARTICLES),
                Need("consistency.frame_difference", 0.0, _NOT_OF_PARTICLES),
                Need("consistency.warp", False, _NOT_OF_PARTICLES),
                Need("observation.ends_fraction", 0.0, _NOT_OF_PARTICLES),
                Need("observation.keyframes_fraction", 0.0, _NOT_OF_PARTICLES),
            ),
        ),
    ),
}


def entry_of(model_type: ModelType, latent: str) -> Entry:
    """Look up `model_type` for `sde.latent`; ValueError where particles are not for it."""
    if latent != "particles":
        return ENTRIES[model_type]
    if model_type not in PARTICLES:
        raise ValueError(
            f"sde.latent is particles, but model_type is {model_type}; particles take model_type="
            f"{' or '.join(PARTICLES)}"
        )
    return PARTICLES[model_type]


def takers_of(option: str) -> tuple[str, ...]:
    """Name the objectives that take this option of sampling."""
    return tuple(
        name for name, entry in ENTRIES.items() if option in entry.capabilities.sampling_options
    )


def _imported(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
