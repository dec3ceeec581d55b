"""The latent SDE: a prior on motion that history conditions, and a controlled posterior."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Conditions, Control, Prior, State
from sdevid.models.encoder import Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.guide import Ahead, Toward
from sdevid.models.solver_grid import solver_grid
from sdevid.models.start import PosteriorStart
from sdevid.models.temporal import History
from sdevid.models.video_model import Known, Moved, Mover, VideoModel, Walk
from sdevid.sde.birth import over_temperature
from sdevid.sde.equation import SDE
from sdevid.sde.integrate import Step, solve
from sdevid.types import TICKS_PER_SECOND


class SDEModel(VideoModel):
    """A model whose state, or its velocity, moves by dz = h(z, w, c) dt + g(z, w, c) dW."""

    prior: Prior
    prior_parts = ("start_prior", "prior", "guide")

    def mover(self, w: Float[Tensor, "batch content"], known: Known, walk: Walk) -> Mover:
        """The prior, solved by the walk's solver.

        Guidance is a control: with u = (scale - 1) (h - h') / g the drift is h' + scale (h - h'),
        h' that of the other text, and Girsanov's theorem says what it costs.
        """
        conditions = self._conditions(w, known.history)
        other = None if known.other is None else self._conditions(w, known.other)
        noise = self.brownian(walk.seed, walk.serial)

        def move(z: State, ticks: Int64[Tensor, "batch points"]) -> Moved:
            grid, saved = solver_grid(ticks, self.cell, walk.steps_per_frame)
            if walk.solver != "euler_maruyama":
                law = self._equation(conditions, other, known.ahead, walk)
                path = solve(law, z, grid, noise, walk.solver, saved[1:])
                return Moved(path.states, path.kl)
            dw = walk.temperature * noise.increments(grid)
            toward = self.toward(known.ahead, grid[:, :-1])
            if other is None:
                prior = self.prior, conditions
                path = trajectory.solve(self.config, z, grid, dw, saved[1:], prior, toward=toward)
                return Moved(path.states, path.kl)
            steps = [None] * dw.shape[1] if toward is None else toward.unbind()

            def coefficients(z: State, k: int) -> Step:
                drift, g = self.prior(z, conditions, steps[k])
                apart = drift - self.prior(z, other, steps[k])[0]
                return Step(drift, g, (walk.guidance_scale - 1) * apart / g)

            chain = trajectory.chain_of(self.config)
            path = chain(z, grid, dw, coefficients, self.config.sde.kernels)
            return Moved(path.states[:, saved[1:]], over_temperature(path.kl, walk.temperature))

        return move

    def toward(self, ahead: Ahead | None, at: Int64[Tensor, "batch times"]) -> Toward | None:
        """What observed frames ahead of the ticks `at` add to the drift there."""
        if self.guide is None or ahead is None:
            return None
        found: Toward = self.guide(ahead, at)
        return found

    def _conditions(self, w: Float[Tensor, "batch content"], history: History) -> Conditions:
        return self.prior.conditions(w, history.summary.mean(1))

    def _equation(
        self, conditions: Conditions, other: Conditions | None, ahead: Ahead | None, walk: Walk
    ) -> SDE:
        """The prior for any solver, its noise at the walk's temperature."""

        def rates(t: Tensor, z: State, told: Conditions = conditions) -> tuple[State, State]:
            at = (t.flatten(1).double() * TICKS_PER_SECOND).round().long()
            toward = self.toward(ahead, at)
            found = self.prior(z, told, None if toward is None else toward.unbind()[0])
            return found[0], walk.temperature * found[1]

        def control(t: Tensor, z: State) -> State:
            drift, g = rates(t, z)
            assert other is not None
            return (walk.guidance_scale - 1) * (drift - rates(t, z, other)[0]) / g

        return SDE(
            drift=lambda t, z: rates(t, z)[0],
            diffusion=lambda t, z: rates(t, z)[1],
            control=None if other is None else control,
            noise=self.config.sde.noise,
        )


class LatentSDE(SDEModel):
    """A latent SDE on video (Li et al. 2020): its posterior is the prior with a control."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        sde, features = config.sde, config.encoder.features
        with self.named("start_posterior"):
            self.start_posterior = PosteriorStart(config, self.side)
        with self.named("prior"):
            self.prior = Prior(sde, features, stratonovich=config.sde_type == "stratonovich")
        with self.named("control"):
            self.control = Control(sde, features)

    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Return q(w | x), and q(z | x) at the first frame, where the controlled path begins."""
        content, state = self.start_posterior(tokens[:, 0])
        return content, Gaussian(state.mean[:, None], state.scale[:, None])
