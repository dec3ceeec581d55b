"""Follmer's bridge from each latent frame to the next, by regression (Chen et al. 2024).

The frames' posterior is learnt by reconstruction and a weak divergence from N(0, 1), which sets
the latent's unit; the bridge and p(z_0 | c) are learnt on its draws, which they take as given.
There is no bound on the likelihood.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.follmer import Follmer, Memory
from sdevid.models.gaussian import Gaussian
from sdevid.objectives.history_objective import EncodedClips, HistoryObjective, PathTerms
from sdevid.objectives.start import Start
from sdevid.objectives.window import Window
from sdevid.sde import interpolant
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import units


class FollmerObjective(HistoryObjective):
    """Reconstruction, divergences of content, first state and frames, and the bridge regression."""

    model: Follmer
    detach_start = True

    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Regress the bridges; `bridge` is a squared error in units of the noise."""
        z, model = start.states, self.model
        conditions = model.conditions(start.content.detach(), clips.context)
        conditions = conditions.repeat_interleave(z.shape[1] - 1, 0)
        shift = model.future_shift(clips.future, clips.ticks[:, :-1])
        conditions = conditions if shift is None else conditions + shift
        terms = {
            "frame_divergence": _from_standard(start.posterior, clips.window),
            "bridge": self._bridge(z.detach(), conditions, clips),
        }
        return PathTerms(z, terms, start.posterior.scale)

    def loss(self, means: dict[str, Tensor], kl_weight: float | Tensor) -> Float[Tensor, ""]:
        """Add the regression and the weak divergence of the frames to the common loss."""
        weak = self.config.follmer.frame_divergence * means["frame_divergence"]
        return super().loss(means, kl_weight) + weak + means["bridge"]

    def _bridge(
        self, z: Tensor, conditions: Tensor, clips: EncodedClips
    ) -> Float[Tensor, " batch"]:
        """Sum 1/2 |b - R_s|^2 / eps^2 over pairs, at one s in each of equal parts of [0, 1]."""
        serial = clips.serial
        drift, count, seed = self.model.bridge, self.config.follmer.times, self.config.seed
        pairs = z.shape[1] - 1
        left, memory = self._memory(z, clips)
        memory = Memory(*(m if m is None else m.repeat_interleave(count, 0) for m in memory))
        x0, x1 = (part.flatten(0, 1).repeat_interleave(count, 0) for part in (left, z[:, 1:]))
        span = units(clips.ticks.diff(dim=1))
        span = span.where(span > 0, 1 / self.model.bridge.rate).flatten().repeat_interleave(count)
        parts = torch.arange(count, device=z.device)
        s = (parts + uniform(seed, serial, Stream.TIME, (pairs, count))).flatten() / count
        xi = normal(seed, serial, Stream.MARGINAL, (pairs, count, *z.shape[2:])).flatten(0, 2)
        eps, at = drift.eps(span, x0), s.view(-1, *[1] * (x0.dim() - 1))
        bridge = interpolant.interpolate(x0, x1, xi, at, eps)
        repeated = conditions.repeat_interleave(count, 0)
        estimate = drift(bridge.state, s, x0, span, repeated, memory)
        error = 0.5 * ((estimate - bridge.target) / eps).square().flatten(1).sum(1)
        each = torch.unflatten(error, 0, (-1, pairs, count)).mean(2)
        return (each * clips.window.valid[:, 1:]).sum(1)

    def _memory(self, z: Tensor, clips: EncodedClips) -> tuple[Tensor, Memory]:
        """Add noise to the frames that bridges leave; also return what the bridges remember."""
        settings, seed, left = self.config.follmer, self.config.seed, z[:, :-1]
        pairs = left.shape[1]
        which, share = uniform(seed, clips.serial, Stream.ANCHOR, (2, pairs)).unbind(1)
        anchor = level = None
        if settings.anchor:
            past = (which * torch.arange(1, pairs + 1, device=z.device)).long()
            rows = torch.arange(len(z), device=z.device)[:, None]
            anchor = z[rows, past].flatten(0, 1)
        if settings.context_noise:
            level = settings.context_noise * share
            noise = normal(seed, clips.serial, Stream.CONTEXT_NOISE, tuple(left.shape[1:]))
            left = left + level.view(*level.shape, *[1] * (left.dim() - 2)) * noise
            level = level.flatten()
        return left, Memory(anchor, level)


def _from_standard(state: Gaussian, window: Window) -> Float[Tensor, " batch"]:
    """Compute the KL of the frames' posteriors from N(0, 1), in nats, summed over a clip."""
    each = 0.5 * (state.scale.square() + state.mean.square() - 1) - state.scale.log()
    return (each.flatten(2).sum(2) * window.valid).sum(1)
