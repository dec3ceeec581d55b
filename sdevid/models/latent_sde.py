"""The latent SDE: a prior on motion that history conditions, and a controlled posterior."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Control, Prior, State
from sdevid.models.decoder import FrameDecoder
from sdevid.models.start import PosteriorStart
from sdevid.models.temporal import History
from sdevid.models.video_model import Mover, VideoModel, Walk, solver_grid
from sdevid.sde.equation import SDE
from sdevid.sde.integrate import solve

__all__ = ["LatentSDE", "SDEModel", "solver_grid"]


class SDEModel(VideoModel):
    """A model whose state moves by dz = h(z, w, c) dt + g(z, w, c) dW."""

    prior: Prior
    prior_parts = ("start_prior", "prior")

    def mover(self, w: Float[Tensor, "batch content"], history: History, walk: Walk) -> Mover:
        """The prior, solved by the walk's solver."""
        conditions = self.prior.conditions(w, history.summary.mean(1))
        noise = self.brownian(walk.seed, walk.serial)

        def move(z: State, ticks: Int64[Tensor, "batch points"]) -> Tensor:
            grid, saved = solver_grid(ticks, self.cell, walk.steps_per_frame)
            if walk.solver == "euler_maruyama":
                dw = walk.temperature * noise.increments(grid)
                solved = self.prior, conditions
                return trajectory.solve(self.config, z, grid, dw, saved[1:], solved).states
            law = self._equation(lambda z: self.prior(z, conditions), walk.temperature)
            return solve(law, z, grid, noise, walk.solver, saved[1:]).states

        return move

    def _equation(self, prior: Callable[[State], tuple[State, State]], temperature: float) -> SDE:
        return SDE(
            drift=lambda _, z: prior(z)[0],
            diffusion=lambda _, z: temperature * prior(z)[1],
            noise=self.config.sde.noise,
        )


class LatentSDE(SDEModel):
    """A latent SDE on video (Li et al. 2020): its posterior is the prior with a control."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        sde, features = config.sde, config.encoder.features
        self.start_posterior = PosteriorStart(config, self.side)
        self.prior = Prior(sde, features, stratonovich=config.sde_type == "stratonovich")
        self.control = Control(sde, features)
        self.decoder = FrameDecoder(config)
