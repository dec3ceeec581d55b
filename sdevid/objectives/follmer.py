"""Follmer's bridge from each latent frame to the next, by regression (Chen et al. 2024).

The frames' posterior is learnt by reconstruction and a weak divergence from N(0, 1), which sets
the latent's unit; the bridge and p(z_0 | c) are learnt on its draws, which they take as given.
There is no bound on the likelihood.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.config import Config
from sdevid.models.consistency import frame_difference
from sdevid.models.follmer import Follmer
from sdevid.models.gaussian import Gaussian, kl, kl_to_mixture
from sdevid.models.text import Text
from sdevid.objectives.clip_objective import ClipObjective, PerClip, Window, log_likelihood
from sdevid.sde import interpolant
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Serial, Ticks, Video, as_frames, seconds


class FollmerObjective(ClipObjective):
    """Reconstruction, the divergences of content, first state and frames, and the regression."""

    model: Follmer
    bound = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = Follmer(config)

    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Each clip's terms: nats, but for `bridge`, squared errors in units of the noise."""
        model, seed, frames = self.model, self.config.seed, as_frames(video)
        seen = self.look(frames, ticks, serial, context, text)
        window, history = seen.window, seen.history
        content, state = model.posterior(window.cut(seen.full.tokens))
        prior_content, prior_state = model.start_prior(history.summary)
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        eps = normal(seed, serial, Stream.INITIAL, state.mean.shape[1:])
        z, real = state.at(eps), window.cut(frames)
        decoded = model.decoder(z, w)
        score = log_likelihood(decoded, real, self.config.observation)
        first = Gaussian(state.mean[:, 0].detach(), state.scale[:, 0].detach())
        times = window.cut(ticks)
        told = model.told(w.detach(), history).repeat_interleave(z.shape[1] - 1, 0)
        shift = model.ahead(seen.ahead, times[:, :-1])
        told = told if shift is None else told + shift
        terms = {
            "reconstruction": (score * window.counts).sum(1),
            "kl_initial": kl_to_mixture(first, prior_state, z[:, 0].detach(), eps[:, 0]),
            "kl_content": kl(content, prior_content),
            "frame_divergence": _from_standard(state, window),
            "bridge": self._bridge(z.detach(), times, told, window, serial),
        }
        if self.config.consistency.frame_difference:
            terms["frame_difference"] = frame_difference(decoded, real, window.counts)
        return terms | {"diffusion": state.scale.detach()}

    def loss(self, means: dict[str, Tensor], kl_weight: float) -> Float[Tensor, ""]:
        """As every objective's, with the regression and the weak divergence of the frames."""
        weak = self.config.follmer.frame_divergence * means["frame_divergence"]
        return super().loss(means, kl_weight) + weak + means["bridge"]

    def _bridge(
        self, z: Tensor, ticks: Ticks, told: Tensor, window: Window, serial: Serial
    ) -> Float[Tensor, " batch"]:
        """sum over pairs of 1/2 |b - R_s|^2 / eps^2, at one s in each of equal parts of [0, 1]."""
        drift, count, seed = self.model.bridge, self.config.follmer.times, self.config.seed
        pairs = z.shape[1] - 1
        x0, x1 = (part.flatten(0, 1).repeat_interleave(count, 0) for part in (z[:, :-1], z[:, 1:]))
        span = seconds(ticks.diff(dim=1))
        span = span.where(span > 0, 1 / self.config.fps).flatten().repeat_interleave(count)
        parts = torch.arange(count, device=z.device)
        s = (parts + uniform(seed, serial, Stream.TIME, (pairs, count))).flatten() / count
        xi = normal(seed, serial, Stream.MARGINAL, (pairs, count, *z.shape[2:])).flatten(0, 2)
        eps, at = drift.eps(span, x0), s.view(-1, *[1] * (x0.dim() - 1))
        bridge = interpolant.interpolate(x0, x1, xi, at, eps)
        found = drift(bridge.state, s, x0, span, told.repeat_interleave(count, 0))
        error = 0.5 * ((found - bridge.target) / eps).square().flatten(1).sum(1)
        each = torch.unflatten(error, 0, (-1, pairs, count)).mean(2)
        return (each * window.counts[:, 1:]).sum(1)


def _from_standard(state: Gaussian, window: Window) -> Float[Tensor, " batch"]:
    """KL of the frames' posteriors from N(0, 1), in nats, summed over a clip."""
    each = 0.5 * (state.scale.square() + state.mean.square() - 1) - state.scale.log()
    return (each.flatten(2).sum(2) * window.counts).sum(1)
