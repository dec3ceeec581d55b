"""The latent SDE: a prior on motion that history conditions, and a controlled posterior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Conditions, Control, Prior, State
from sdevid.models.bridge_conditioning import BridgeTerm, FutureFrames
from sdevid.models.encoder import LastFrame, Tokens
from sdevid.models.gaussian import Gaussian
from sdevid.models.history_model import Context, HistoryModel, PathSegment, Transition
from sdevid.models.reflection import Walls
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
        bridge = self.bridge_terms(context.future)
        scale, temperature = sampler.guidance_scale, sampler.temperature
        noise = self.brownian(sampler.seed, sampler.serials(w))
        scheme = sampler.solver or self.config.sde.solver

        def drive_from(anchor: State) -> trajectory.Drive:
            conditions = self.conditions(w, context.history, anchor)
            negative = None
            if context.negative is not None:
                negative = self.conditions(w, context.negative, anchor)
            return trajectory.Drive(self.prior, conditions, None, bridge, negative, scale)

        def move(
            z: State, ticks: Int64[Tensor, "batch points"], drive: trajectory.Drive
        ) -> PathSegment:
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

        return Anchored(drive_from, move, self.config.sde.anchor_every)

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

    def conditions(
        self,
        w: Float[Tensor, "batch content *cells"],
        history: History,
        start: State,
    ) -> Conditions:
        """Compute what the prior is conditioned on for a clip, whose path begins at `start`."""
        known = self.prior.conditions(w, history.summary, self._walls(history.last))
        return self.prior.anchored(known, start)

    def _walls(self, last: LastFrame | None) -> Walls | None:
        carried = self.decoder.carried
        if carried is None or last is None or self.sides is None:
            return None
        return carried.walls(last.maps, self.sides)


class Anchored:
    """A path in pieces, each with an anchor: its first state, or that of every n-th frame."""

    def __init__(
        self,
        drive_from: Callable[[State], trajectory.Drive],
        move: Callable[[State, Int64[Tensor, "batch points"], trajectory.Drive], PathSegment],
        every: int | None,
    ) -> None:
        self.drive_from, self.move, self.every = drive_from, move, every
        self._drive: trajectory.Drive | None = None
        self._age = 0  # frames

    def __call__(self, z: State, ticks: Int64[Tensor, "batch points"]) -> PathSegment:
        """Go on from `z` at the first of the `ticks`; to be called in order."""
        states, nats, last = [], z.new_zeros(len(z)), ticks.shape[1] - 1
        first = 0
        while first < last:
            if self._drive is None or self._age == self.every:
                self._drive, self._age = self.drive_from(z), 0
            after = last if self.every is None else min(last, first + self.every - self._age)
            part = self.move(z, ticks[:, first : after + 1], self._drive)
            states.append(part.states)
            z, nats = part.states[:, -1], nats + part.nats
            self._age += after - first
            first = after
        return PathSegment(torch.cat(states, dim=1), nats)


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
