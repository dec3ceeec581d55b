"""The bound of a latent SDE without solving it: a posterior chain with marginals at the frames.

KL(q(z_0)) + KL(q(w)) + sum_k E KL(q(z_{k+1} | z_k) || p(z_{k+1} | z_k)) + N E_i -log p(x_i | z_i)

of the Euler-Maruyama chain that is sampled: all steps at once (after Bartosh et al. 2025; see
`sde.matching`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.models.backbone import Conditions
from sdevid.models.gaussian import Gaussian
from sdevid.models.matched_sde import MatchedSDE
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives import futures, prior_consistency
from sdevid.objectives.clip_objective import PerClip
from sdevid.objectives.history_objective import EncodedClips, HistoryObjective, PathTerms
from sdevid.objectives.prior_consistency import Rolled
from sdevid.objectives.start import Start
from sdevid.objectives.window import Window
from sdevid.sde import matching
from sdevid.sde.matching import Marginals
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Serial, units


class PosteriorChain(NamedTuple):
    """The posterior chain through a window."""

    marginals: Marginals  # at the grid points
    rho: Float[Tensor, "batch steps *latent"]
    dt: Float[Tensor, "batch steps *one"]
    ticks: Int64[Tensor, "batch points"]
    saved: list[int]  # the frames among the points


class SDEMatchingObjective(HistoryObjective):
    """The ELBO of clips given their first frames, by a posterior chain that is not simulated."""

    model: MatchedSDE

    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Lay the posterior chain through the frames' states and take its KL."""
        model, window = self.model, clips.window
        conditions = model.conditions(start.content, clips.context, start.states[:, 0])
        chain = self._chain(clips, start.posterior, conditions)
        eps = self._draws(chain, start, clips.serial)
        z = (chain.marginals.mean + chain.marginals.scale * eps)[:, :-1]
        drift, g = self._rates(clips, chain, z, conditions)
        arguments = chain.marginals, eps, drift, g, chain.dt, chain.rho
        kl = matching.step_kl(*arguments).flatten(1).sum(1)
        rolled = Rolled(start.states, clips.ticks, window, conditions, clips.future, clips.serial)
        future = futures.terms(model, clips, start, conditions)
        size = math.prod(model.latent_shape)
        terms = {
            "kl_path": kl,
            "control_energy": kl,
            "gap": kl / (window.intervals() * size),
        }
        return PathTerms(
            states=start.states,
            terms=terms | prior_consistency.terms(model, rolled) | future,
            diffusion=g,
        )

    def weighted_path(
        self, clips: EncodedClips, start: Start
    ) -> tuple[Float[Tensor, "batch time *latent"], Float[Tensor, " batch"]]:
        """Simulate a path of the posterior; return it at the frames with its log p / q in nats."""
        frames = start.posterior
        conditions = self.model.conditions(start.content, clips.context, start.states[:, 0])
        chain = self._chain(clips, frames, conditions)
        first = (start.states[:, 0] - frames.mean[:, 0]) / frames.scale[:, 0]
        seed, shape = self.config.seed, chain.rho.shape[1:]
        draws = normal(seed, clips.serial, Stream.MARGINAL, tuple(shape))
        eps = matching.draw_path(chain.rho, first, draws)
        z = chain.marginals.mean + chain.marginals.scale * eps
        drift, g = self._rates(clips, chain, z[:, :-1], conditions)
        arguments = chain.marginals, eps, drift, g, chain.dt, chain.rho
        ratio = matching.step_log_ratio(*arguments)
        return z[:, chain.saved], ratio.flatten(1).sum(1)

    def score(
        self, clips: EncodedClips, states: Float[Tensor, "batch time *latent"], w: Tensor
    ) -> PerClip:
        """Score all frames, or as many as `matching.frames`, each for those around it."""
        if self.config.matching.frames is None:
            return super().score(clips, states, w)
        chosen, weight = self._chosen(clips.window, clips.serial)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        ticks = clips.ticks[rows, chosen]
        decoded = self.model.decode(states[rows, chosen], w, clips.context, ticks)
        log_prob = self.model.likelihood.log_prob(decoded, clips.frames[rows, chosen])
        return {"reconstruction": weight * log_prob.sum(1)}

    def _chain(
        self, clips: EncodedClips, frames: Gaussian, conditions: Conditions
    ) -> PosteriorChain:
        """Build the chain with these marginals at the frames, bridged between them."""
        model, at_frames = self.model, Marginals(frames.mean, frames.scale)
        grid, saved = solver_grid(clips.ticks, model.cell, self.config.sde.steps_per_frame)
        times = units(grid - grid[:, :1]).to(frames.mean)
        dt = times.diff(dim=1).view(len(times), -1, *[1] * (frames.mean.dim() - 2))
        between = self._diffusion(frames.mean[:, :-1], conditions)
        marginals = matching.bridge(at_frames, between, times, saved)
        means = marginals.mean[:, :-1]
        slope = self._slope(means, conditions)
        rho = matching.correlation(marginals, self._diffusion(means, conditions), dt, slope)
        return PosteriorChain(marginals, rho, dt, grid, saved)

    def _draws(self, chain: PosteriorChain, start: Start, serial: Serial) -> Tensor:
        """Draw the noise at the grid points; at the frames it is that of the decoded states."""
        at_frames = (start.states - start.posterior.mean) / start.posterior.scale
        points = chain.ticks.shape[1]
        if points == len(chain.saved):
            return at_frames
        shape = (points, *at_frames.shape[2:])
        eps = normal(self.config.seed, serial, Stream.MARGINAL, shape)
        frames = torch.arange(0, points, chain.saved[1], device=eps.device)
        return eps.index_copy(1, frames, at_frames)

    def _rates(
        self, clips: EncodedClips, chain: PosteriorChain, z: Tensor, conditions: Conditions
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the prior's drift and diffusion at the states before each step."""
        count = z.shape[1]
        term = self.model.bridge_term(clips.future, chain.ticks[:, :-1])
        term = None if term is None else term.flatten()
        drift, g = self.model.prior(z.flatten(0, 1), conditions.repeated(count), term)
        drift, g = (torch.unflatten(part, 0, (-1, count)) for part in (drift, g))
        return drift, g.expand_as(z)

    def _diffusion(self, z: Tensor, conditions: Conditions) -> Tensor:
        """Evaluate the prior's g at states (batch, points, *latent)."""
        by_point = z.transpose(0, 1)
        return self.model.prior.diffusion(by_point, conditions).expand_as(by_point).transpose(0, 1)

    def _slope(self, z: Tensor, conditions: Conditions) -> Tensor | float:
        """Evaluate dh_i/dz_i at `z`, detached; 0 with `matching.drift_slope: zero`."""
        if self.config.matching.drift_slope == "zero":
            return 0.0
        with torch.enable_grad():
            flat = z.detach().flatten(0, 1).requires_grad_()
            drift = self.model.prior(flat, conditions.repeated(z.shape[1]))[0]
            parts = [
                torch.autograd.grad(drift[:, i].sum(), flat, retain_graph=True)[0][:, i]
                for i in range(flat.shape[1])
            ]
        return torch.unflatten(torch.stack(parts, 1), 0, z.shape[:2]).detach()

    def _chosen(
        self, window: Window, serial: Serial
    ) -> tuple[Int64[Tensor, "batch frames"], Float[Tensor, " batch"]]:
        """Draw one frame in each equal part of the window; also return how many each stands for."""
        count = self.config.matching.frames
        assert count is not None
        draws = uniform(self.config.seed, serial, Stream.FRAMES, (count,))
        frames = window.valid.sum(1, keepdim=True)
        share = (torch.arange(count, device=draws.device) + draws) / count
        chosen = (share * frames).long().minimum(frames - 1)
        return chosen, frames[:, 0] / count
