"""The evidence lower bound by simulating the posterior (Li et al. 2020), of the solver's chain."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import Config, ObservationConfig
from sdevid.models import trajectory
from sdevid.models.consistency import frame_difference
from sdevid.models.encoder import Tokens
from sdevid.models.gaussian import kl, kl_to_mixture
from sdevid.models.latent_sde import LatentSDE, solver_grid
from sdevid.models.temporal import History
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Frames, Serial, Ticks, Video, as_frames, seconds

PerClip = dict[str, Float[Tensor, " batch"]]


class Window(NamedTuple):
    """The part of each clip that is predicted: from the last observed frame to the end.

    Clips with less to predict are filled up with their last frame, which then counts for nothing.
    """

    place: Int64[Tensor, "batch time"]  # index into the clip
    counts: Bool[Tensor, "batch time"]
    reference: Int64[Tensor, "batch 1"]  # index of the frame at which the state starts

    def cut(self, clip: Tensor) -> Tensor:
        """The window's part of (batch, time, ...)."""
        rows = torch.arange(len(clip), device=clip.device)[:, None]
        return clip[rows, self.place]


class Posterior(NamedTuple):
    """One draw from the posterior and what it costs."""

    content: Float[Tensor, "batch content"]
    states: Float[Tensor, "batch time *latent"]  # at the window's frames
    kl_path: Float[Tensor, " batch"]
    kl_initial: Float[Tensor, " batch"]
    kl_content: Float[Tensor, " batch"]
    control_energy: Float[Tensor, " batch"]  # 1/2 sum |u|^2 dt
    diffusion: Float[Tensor, "*any"]  # g at the window's frames


class LatentSDEObjective(nn.Module):
    """The ELBO of clips given their first frames; its negative, with a KL weight, is the loss.

    How many frames the prior is shown is drawn for each clip from its serial, so that one model
    generates freely and carries on from initial frames.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = LatentSDE(config)

    def prior_parameter_names(self) -> set[str]:
        """Names, among this module's, of the parameters that learn through the KL alone."""
        return {f"model.{name}" for name in self.model.prior_parameter_names()}

    def forward(
        self,
        video: Video,
        ticks: Ticks,
        serial: Serial,
        kl_weight: float,
        context: int | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Means over the clips, in nats a clip; `loss` is the one to back-propagate.

        `context` observed frames for every clip, or None to draw their number.
        """
        terms = self.terms(video, ticks, serial, context)
        quantiles = terms.pop("diffusion").flatten()
        means = {name: value.mean() for name, value in terms.items()}
        divergence = sum(value for name, value in means.items() if name.startswith("kl_"))
        means["loss"] = kl_weight * divergence - means["reconstruction"]
        if "frame_difference" in means:
            weight = self.config.consistency.frame_difference
            means["loss"] = means["loss"] + weight * means["frame_difference"]
        shares = torch.tensor([0.05, 0.5, 0.95], device=quantiles.device)
        low, middle, high = torch.quantile(quantiles, shares).unbind()
        return means | {"g_q05": low, "g_q50": middle, "g_q95": high}

    def terms(
        self, video: Video, ticks: Ticks, serial: Serial, context: int | None = None
    ) -> PerClip:
        """Each clip's bound and its parts, in nats; and `diffusion`, g at the frames."""
        frames = as_frames(video)
        known = self._context(serial, frames.shape[1], context)
        window = self._window(known, frames.shape[1])
        tokens = self.model.encoder(frames)
        history, full = self._histories(tokens, ticks, known, window)
        posterior = self._posterior(history, full, window.cut(ticks), window, serial)
        decoded = self.model.decoder(posterior.states, posterior.content)
        real = window.cut(frames)
        score = log_likelihood(decoded, real, self.config.observation)
        terms = {
            "reconstruction": (score * window.counts).sum(1),
            "kl_path": posterior.kl_path,
            "kl_initial": posterior.kl_initial,
            "kl_content": posterior.kl_content,
        }
        terms["elbo"] = terms["reconstruction"] - sum(
            value for name, value in terms.items() if name.startswith("kl_")
        )
        if self.config.consistency.frame_difference:
            terms["frame_difference"] = frame_difference(decoded, real, window.counts)
        intervals = (window.counts.sum(1) - 1).clamp(min=1) * math.prod(self.model.latent_shape)
        return terms | {
            "control_energy": posterior.control_energy,
            "gap": posterior.kl_path / intervals,
            "diffusion": posterior.diffusion.detach(),
        }

    def _context(self, serial: Serial, frames: int, fixed: int | None) -> Int64[Tensor, " batch"]:
        if fixed is not None:
            return torch.full_like(serial, fixed)
        settings = self.config.observation
        most = min(settings.max_context, frames - 1)
        free, share = uniform(self.config.seed, serial, Stream.CONTEXT, (2,)).unbind(1)
        known = (1 + (share * most).long()).clamp(max=most)
        return torch.where(free < settings.free_fraction, 0, known)

    @staticmethod
    def _window(known: Int64[Tensor, " batch"], frames: int) -> Window:
        reference = (known - 1).clamp(min=0)[:, None]
        place = reference + torch.arange(frames, device=known.device)
        return Window(place.clamp(max=frames - 1), place < frames, reference)

    def _histories(
        self, tokens: Tokens, ticks: Ticks, known: Tensor, window: Window
    ) -> tuple[History, History]:
        """What the prior may see and what the posterior sees, in one pass."""
        times = seconds(ticks - ticks.gather(1, window.reference))
        observed = torch.arange(ticks.shape[1], device=ticks.device) < known[:, None]
        seen = torch.cat([observed, torch.ones_like(observed)])
        both = self.model.temporal(tokens.repeat(2, 1, 1, 1), times.repeat(2, 1), seen)
        history, full = zip(*(part.chunk(2) for part in both), strict=True)
        return History(*history), History(*full)

    def _posterior(
        self, history: History, full: History, ticks: Ticks, window: Window, serial: Serial
    ) -> Posterior:
        """Draw w, z_0 and the controlled path. A step's control sees the frames on both sides."""
        model, seed = self.model, self.config.seed
        tokens = window.cut(full.tokens)
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
        path = trajectory.solve(self.config, z0, grid, noise, saved, prior, control)
        return Posterior(
            content=w,
            states=path.states,
            kl_path=path.kl,
            kl_initial=kl_to_mixture(state, prior_state, z0, eps),
            kl_content=kl(content, prior_content),
            control_energy=path.control_energy,
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


def log_likelihood(
    decoded: Frames, real: Frames, observation: ObservationConfig
) -> Float[Tensor, "batch time"]:
    """log p(x_i | decoded frame) in nats, summed over a frame's pixels and channels, float32."""
    apart = ((real - decoded) / observation.scale).flatten(2)
    if observation.likelihood == "laplace":
        return -(apart.abs() + math.log(2 * observation.scale)).sum(2)
    level = math.log(observation.scale) + 0.5 * math.log(2 * math.pi)
    return -(0.5 * apart.square() + level).sum(2)
