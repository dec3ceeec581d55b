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

from sdevid.config import Config
from sdevid.models.backbone import Conditions
from sdevid.models.consistency import frame_difference
from sdevid.models.gaussian import Gaussian, kl, kl_to_mixture
from sdevid.models.guide import Ahead
from sdevid.models.marginal import Marginals
from sdevid.models.matched_sde import MatchedSDE
from sdevid.models.text import Text
from sdevid.objectives import prior_consistency
from sdevid.objectives.clip_objective import (
    ClipObjective,
    PerClip,
    Window,
    log_likelihood,
    with_bound,
)
from sdevid.objectives.prior_consistency import Rolled
from sdevid.sde.matching import conditional_drift, stratified
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import TICKS_PER_SECOND, Frames, Serial, Ticks, Video, as_frames, seconds


class PathCost(NamedTuple):
    """What the posterior's path costs."""

    kl: Float[Tensor, " batch"]
    diffusion: Float[Tensor, "batch *any"]  # g at the times drawn


class SDEMatchingObjective(ClipObjective):
    """The ELBO of clips given their first frames, its path KL estimated at times drawn."""

    model: MatchedSDE

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = MatchedSDE(config)

    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Each clip's bound and its parts, in nats; and `diffusion`, all values of g used."""
        model, seed, frames = self.model, self.config.seed, as_frames(video)
        seen = self.look(frames, ticks, serial, context, text)
        window, history = seen.window, seen.history
        shown = window.cut(ticks)
        times = seconds(shown - shown[:, :1])
        tokens = window.cut(seen.full.tokens)
        content, state = model.marginal.at_frames(tokens)
        prior_content, prior_state = model.start_prior(history.summary)
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        eps = normal(seed, serial, Stream.INITIAL, state.mean.shape[1:])
        conditions = model.prior.conditions(w, history.summary.mean(1))
        marginals = model.marginal.between(state, tokens, times, self._diffusion(state, conditions))
        path = self._path(marginals, conditions, times, serial, (seen.ahead, shown[:, :1]))
        first = Gaussian(state.mean[:, 0], state.scale[:, 0])
        states = state.at(eps)
        decoded = self._seen(states, w, window.cut(frames), window, serial)
        terms = with_bound(
            {
                "reconstruction": decoded.pop("reconstruction"),
                "kl_path": path.kl,
                "kl_initial": kl_to_mixture(first, prior_state, first.at(eps[:, 0]), eps[:, 0]),
                "kl_content": kl(content, prior_content),
            }
        )
        rolled = Rolled(states, shown, window, conditions, seen.ahead, serial)
        terms |= prior_consistency.terms(model, rolled)
        intervals = (window.counts.sum(1) - 1).clamp(min=1) * math.prod(model.latent_shape)
        gauges = {"control_energy": path.kl, "gap": path.kl / intervals}
        return terms | decoded | gauges | {"diffusion": path.diffusion.detach()}

    def _diffusion(self, state: Gaussian, conditions: Conditions) -> Tensor:
        """The prior's g at the frames that begin an interval."""
        starts = state.mean[:, :-1].transpose(0, 1)
        g = self.model.prior.diffusion(starts, conditions)
        return g.expand(len(starts), *g.shape[1 - starts.dim() :]).transpose(0, 1)

    def _path(
        self,
        marginals: Marginals,
        conditions: Conditions,
        times: Float[Tensor, "batch time"],
        serial: Serial,
        ahead: tuple[Ahead | None, Int64[Tensor, "batch 1"]],
    ) -> PathCost:
        """T E 1/2 |(h - f) / g|^2, from one time in each of equal parts of the clip.

        `ahead`: the observed frames, and the tick at which the path begins.
        """
        count, seed = self.config.matching.times, self.config.seed
        moments = stratified(uniform(seed, serial, Stream.TIME, (count,)), times)
        mean, scale = marginals.at(moments)
        eps = normal(seed, serial, Stream.MARGINAL, mean.value.shape[1:])
        z = mean.value + scale.value * eps
        at = ahead[1] + (moments.seconds * TICKS_PER_SECOND).long()
        toward = self.model.toward(ahead[0], at)
        toward = None if toward is None else toward.flatten()
        rates = self.model.prior.rates(z.flatten(0, 1), conditions.repeated(count), toward)
        drift, g = (torch.unflatten(part, 0, (-1, count)) for part in rates[:2])
        slope = None if rates[2] is None else torch.unflatten(rates[2], 0, (-1, count))
        own = conditional_drift(mean, scale, eps, g, slope)
        density = 0.5 * ((drift - own) / g).square().flatten(2).sum(2)
        return PathCost(times[:, -1] * (moments.weight * density).mean(1), g)

    def _seen(
        self, states: Tensor, w: Tensor, real: Frames, window: Window, serial: Serial
    ) -> PerClip:
        """N E_i log p(x_i | z_i, w), from all frames or from as many as `matching.frames`."""
        model, observation = self.model, self.config.observation
        if self.config.matching.frames is None:
            decoded = model.decoder(states, w)
            score = log_likelihood(decoded, real, observation) * window.counts
            found = {"reconstruction": score.sum(1)}
            if self.config.consistency.frame_difference:
                found["frame_difference"] = frame_difference(decoded, real, window.counts)
            return found
        chosen, each = self._chosen(window, serial)
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        decoded = model.decoder(states[rows, chosen], w)
        score = log_likelihood(decoded, real[rows, chosen], observation)
        return {"reconstruction": each * score.sum(1)}

    def _chosen(
        self, window: Window, serial: Serial
    ) -> tuple[Int64[Tensor, "batch frames"], Float[Tensor, " batch"]]:
        """Frames of the window, one in each of equal parts of it; and how many each stands for."""
        count = self.config.matching.frames
        assert count is not None
        draws = uniform(self.config.seed, serial, Stream.FRAMES, (count,))
        frames = window.counts.sum(1, keepdim=True)
        share = (torch.arange(count, device=draws.device) + draws) / count
        chosen = (share * frames).long().minimum(frames - 1)
        return chosen, frames[:, 0] / count
