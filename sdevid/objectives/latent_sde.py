"""The evidence lower bound by simulating the posterior (Li et al. 2020), of the solver's chain."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.config import Config
from sdevid.models import trajectory
from sdevid.models.backbone import Conditions
from sdevid.models.consistency import frame_difference
from sdevid.models.encoder import Tokens
from sdevid.models.gaussian import kl, kl_to_mixture
from sdevid.models.latent_sde import LatentSDE, solver_grid
from sdevid.models.text import Text
from sdevid.objectives import prior_consistency
from sdevid.objectives.clip_objective import (
    ClipObjective,
    PerClip,
    Seen,
    log_likelihood,
    with_bound,
)
from sdevid.objectives.prior_consistency import Rolled
from sdevid.sde.noise import Stream, normal
from sdevid.types import Serial, Ticks, Video, as_frames


class Posterior(NamedTuple):
    """One draw from the posterior and what it costs."""

    content: Float[Tensor, "batch content"]
    states: Float[Tensor, "batch time *latent"]  # at the window's frames
    kl_path: Float[Tensor, " batch"]
    kl_initial: Float[Tensor, " batch"]
    kl_content: Float[Tensor, " batch"]
    control_energy: Float[Tensor, " batch"]  # 1/2 sum |u|^2 dt
    conditions: Conditions
    diffusion: Float[Tensor, "*any"]  # g at the window's frames


class LatentSDEObjective(ClipObjective):
    """The ELBO of clips given their first frames; its negative, with a KL weight, is the loss."""

    model: LatentSDE

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LatentSDE(config)

    def terms(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        context: int | None = None,
        text: Text | None = None,
    ) -> PerClip:
        """Each clip's bound and its parts, in nats; and `diffusion`, g at the frames."""
        frames = as_frames(video)
        seen = self.look(frames, ticks, serial, context, text)
        window = seen.window
        times = window.cut(ticks)
        posterior = self._posterior(seen, times, serial)
        decoded = self.model.decoder(posterior.states, posterior.content)
        real = window.cut(frames)
        score = log_likelihood(decoded, real, self.config.observation)
        terms = with_bound(
            {
                "reconstruction": (score * window.counts).sum(1),
                "kl_path": posterior.kl_path,
                "kl_initial": posterior.kl_initial,
                "kl_content": posterior.kl_content,
            }
        )
        if self.config.consistency.frame_difference:
            terms["frame_difference"] = frame_difference(decoded, real, window.counts)
        known = posterior.conditions, seen.ahead, serial
        terms |= prior_consistency.terms(
            self.model, Rolled(posterior.states, times, window, *known)
        )
        intervals = (window.counts.sum(1) - 1).clamp(min=1) * math.prod(self.model.noise_shape)
        return terms | {
            "control_energy": posterior.control_energy,
            "gap": posterior.kl_path / intervals,
            "diffusion": posterior.diffusion.detach(),
        }

    def _posterior(self, seen: Seen, ticks: Ticks, serial: Serial) -> Posterior:
        """Draw w, z_0 and the controlled path. A step's control sees the frames on both sides."""
        model, seed, history = self.model, self.config.seed, seen.history
        tokens = seen.window.cut(seen.full.tokens)
        content, state = model.start_posterior(tokens[:, 0])
        prior_content, prior_state = model.start_prior(history.summary)
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        eps = normal(seed, serial, Stream.INITIAL, model.latent_shape)
        z0 = state.at(eps)
        grid, saved = solver_grid(ticks, model.cell, self.config.sde.steps_per_frame)
        conditions = model.prior.conditions(w, history.summary.mean(1))
        controls = model.control.conditions(step_tokens(tokens, saved), model.side)
        noise = model.brownian(seed, serial)
        prior, control = (model.prior, conditions), (model.control, controls)
        toward = model.toward(seen.ahead, grid[:, :-1])
        path = trajectory.solve(self.config, z0, grid, noise, saved, prior, control, toward)
        return Posterior(
            content=w,
            states=path.states,
            kl_path=path.kl,
            kl_initial=kl_to_mixture(state, prior_state, z0, eps),
            kl_content=kl(content, prior_content),
            control_energy=path.control_energy,
            conditions=conditions,
            diffusion=model.prior.diffusion(path.states.transpose(0, 1), conditions),
        )


def step_tokens(tokens: Tokens, saved: list[int]) -> Float[Tensor, "batch steps cells features"]:
    """A token for each solver step, between those of the frames around its end."""
    upper, share = [], []
    for frame, (first, last) in enumerate(pairwise(saved), start=1):
        upper += [frame] * (last - first)
        share += [(i + 1) / (last - first) for i in range(last - first)]
    after = torch.tensor(upper, device=tokens.device)
    part = torch.tensor(share, device=tokens.device, dtype=tokens.dtype)[:, None, None]
    return torch.lerp(tokens[:, after - 1], tokens[:, after], part)
