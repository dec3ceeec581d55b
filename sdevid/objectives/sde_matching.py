"""The bound of a latent SDE without solving it (Bartosh et al. 2025).

    T E_{t, eps} 1/2 |(h(z_t) - f(z_t)) / g|^2 + KL(q(z_0)) + KL(q(w)) + N E_{i, eps} -log p(x_i)

at z_t = m(t) + s(t) eps, f the drift of the SDE with diffusion g and these marginals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.models.backbone import Conditions
from sdevid.models.gaussian import Gaussian
from sdevid.models.marginal import Marginals
from sdevid.models.matched_sde import MatchedSDE
from sdevid.objectives import futures, prior_consistency
from sdevid.objectives.clip_objective import PerClip
from sdevid.objectives.history_objective import EncodedClips, HistoryObjective, PathTerms
from sdevid.objectives.prior_consistency import Rolled
from sdevid.objectives.start import Start
from sdevid.objectives.window import Window
from sdevid.sde.matching import conditional_drift, stratified
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import TICKS_PER_UNIT, Serial, units


class PathCost(NamedTuple):
    """What the posterior's path costs."""

    kl: Float[Tensor, " batch"]
    diffusion: Float[Tensor, "batch *any"]  # g at the times drawn


class SDEMatchingObjective(HistoryObjective):
    """The ELBO of clips given their first frames, its path KL estimated at times drawn."""

    model: MatchedSDE

    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Fit marginals through the frames' states and estimate the KL of their path."""
        model, window = self.model, clips.window
        times = units(clips.ticks - clips.ticks[:, :1])
        conditions = model.prior.conditions(start.content, clips.context.summary)
        g = self._diffusion(start.posterior, conditions)
        marginals = model.marginal.between(start.posterior, clips.tokens, times, g)
        cost = self._path_cost(marginals, conditions, times, clips)
        rolled = Rolled(start.states, clips.ticks, window, conditions, clips.future, clips.serial)
        future = futures.terms(model, clips, start, conditions)
        size = math.prod(model.latent_shape)
        terms = {
            "kl_path": cost.kl,
            "control_energy": cost.kl,
            "gap": cost.kl / (window.intervals() * size),
        }
        return PathTerms(
            states=start.states,
            terms=terms | prior_consistency.terms(model, rolled) | future,
            diffusion=cost.diffusion,
        )

    def score(
        self, clips: EncodedClips, states: Float[Tensor, "batch time *latent"], w: Tensor
    ) -> PerClip:
        """Score all frames, or as many as `matching.frames`, each for those around it."""
        if self.config.matching.frames is None:
            return super().score(clips, states, w)
        chosen, weight = self._chosen(clips.window, clips.serial)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        decoded = self.model.decoder(states[rows, chosen], w)
        log_prob = self.model.likelihood.log_prob(decoded, clips.frames[rows, chosen])
        return {"reconstruction": weight * log_prob.sum(1)}

    def _diffusion(self, state: Gaussian, conditions: Conditions) -> Tensor:
        """The prior's g at the frames that begin an interval."""
        starts = state.mean[:, :-1].transpose(0, 1)
        g = self.model.prior.diffusion(starts, conditions)
        return g.expand(len(starts), *g.shape[1 - starts.dim() :]).transpose(0, 1)

    def _path_cost(
        self,
        marginals: Marginals,
        conditions: Conditions,
        times: Float[Tensor, "batch time"],
        clips: EncodedClips,
    ) -> PathCost:
        """Estimate T E 1/2 |(h - f) / g|^2 at one time in each of equal parts of the clip."""
        serial = clips.serial
        count, seed = self.config.matching.times, self.config.seed
        moments = stratified(uniform(seed, serial, Stream.TIME, (count,)), times)
        mean, scale = marginals.at(moments)
        eps = normal(seed, serial, Stream.MARGINAL, mean.value.shape[1:])
        z = mean.value + scale.value * eps
        at = clips.ticks[:, :1] + (moments.elapsed * TICKS_PER_UNIT).long()
        term = self.model.bridge_term(clips.future, at)
        term = None if term is None else term.flatten()
        rates = self.model.prior.rates(z.flatten(0, 1), conditions.repeated(count), term)
        drift, g = (torch.unflatten(part, 0, (-1, count)) for part in rates[:2])
        slope = None if rates[2] is None else torch.unflatten(rates[2], 0, (-1, count))
        own = conditional_drift(mean, scale, eps, g, slope)
        density = 0.5 * ((drift - own) / g).square().flatten(2).sum(2)
        return PathCost(times[:, -1] * (moments.weight * density).mean(1), g)

    def _chosen(
        self, window: Window, serial: Serial
    ) -> tuple[Int64[Tensor, "batch frames"], Float[Tensor, " batch"]]:
        """Draw frames of the window, one in each equal part; and how many each stands for."""
        count = self.config.matching.frames
        assert count is not None
        draws = uniform(self.config.seed, serial, Stream.FRAMES, (count,))
        frames = window.valid.sum(1, keepdim=True)
        share = (torch.arange(count, device=draws.device) + draws) / count
        chosen = (share * frames).long().minimum(frames - 1)
        return chosen, frames[:, 0] / count
