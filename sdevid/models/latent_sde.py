"""The latent SDE: a prior on motion that history conditions, and a controlled posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Conditions, Control, Prior, State
from sdevid.models.bridge_conditioning import BridgeTerm, FutureFrames
from sdevid.models.encoder import Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.history_model import Context, HistoryModel, PathSegment, Transition
from sdevid.models.sampling import SamplerConfig
from sdevid.models.solver_grid import solver_grid
from sdevid.models.start import PosteriorStart
from sdevid.models.temporal import History
from sdevid.sde.birth import over_temperature
from sdevid.sde.problem import EULER
from sdevid.sde.solve import solve


class SDEModel(HistoryModel):
    """A model whose state, or its velocity, moves by dz = h(z, w, c) dt + g(z, w, c) dW."""

    prior: Prior
    prior_parts = ("start_prior", "prior", "guide")

    def transition(
        self, w: Float[Tensor, "batch content *cells"], context: Context, sampler: SamplerConfig
    ) -> Transition:
        """Solve the prior by the sampler's solver."""
        conditions = self._conditions(w, context.history)
        negative = None if context.negative is None else self._conditions(w, context.negative)
        bridge = self.bridge_terms(context.future)
        scale, temperature = sampler.guidance_scale, sampler.temperature
        drive = trajectory.Drive(self.prior, conditions, None, bridge, negative, scale)
        noise = self.brownian(sampler.seed, sampler.serials(w))
        scheme = sampler.solver or self.config.sde.solver

        def move(z: State, ticks: Int64[Tensor, "batch points"]) -> PathSegment:
            grid, saved = solver_grid(ticks, self.cell, sampler.steps_per_frame)
            if scheme == EULER:
                dw = noise if temperature == 1 else temperature * noise.increments(grid)
                problem = trajectory.problem(self.config, z, grid, dw, saved[1:], drive)
                path = solve(replace(problem, scheme=scheme))
                return PathSegment(path.states, over_temperature(path.kl, temperature))
            problem = trajectory.problem(self.config, z, grid, noise, saved[1:], drive)
            fields = drive.fields(grid, self.config.sde.noise, temperature)
            tolerance = sampler.tolerance
            path = solve(replace(problem, scheme=scheme, fields=fields, tolerance=tolerance))
            return PathSegment(path.states, path.kl)

        return move

    def bridge_terms(
        self, future: FutureFrames | None
    ) -> Callable[[Int64[Tensor, "batch times"]], BridgeTerm] | None:
        """Build the function of ticks that gives what observed frames ahead add to the drift."""
        if self.guide is None or future is None:
            return None
        return partial(self.guide, future)

    def bridge_term(
        self, future: FutureFrames | None, at: Int64[Tensor, "batch times"]
    ) -> BridgeTerm | None:
        """Compute what observed frames ahead of the ticks `at` add to the drift there."""
        terms = self.bridge_terms(future)
        return None if terms is None else terms(at)

    def _conditions(self, w: Float[Tensor, "batch content *cells"], history: History) -> Conditions:
        return self.prior.conditions(w, history.summary)


class LatentSDE(SDEModel):
    """A latent SDE on video (Li et al. 2020): its posterior is the prior with a control."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        sde, features = config.sde, config.encoder.features
        with self.named("start_posterior"):
            self.start_posterior = PosteriorStart(config, self.sides)
        with self.named("prior"):
            calculus = config.sde_type == "stratonovich"
            self.prior = Prior(sde, features, sides=self.sides, stratonovich=calculus)
        with self.named("control"):
            self.control = Control(sde, features, config.encoder.carried_layers)

    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x), and q(z | x) at the first frame, where the controlled path begins."""
        content, state = self.start_posterior(tokens[:, 0])
        return content, Gaussian(state.mean[:, None], state.scale[:, None])
