"""Latent frame to latent frame by Follmer's bridge (Chen et al. 2024)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.backbone import PlaceConditions, State, by_place, pooled, state_network
from sdevid.models.bridge_conditioning import BridgeTerm, FutureFrames
from sdevid.models.encoder import Tokens
from sdevid.models.frame_posterior import FramePosterior
from sdevid.models.gaussian import Gaussian
from sdevid.models.history_model import Context, HistoryModel, PathSegment, Transition
from sdevid.models.sampling import SamplerConfig
from sdevid.models.solver_grid import solver_grid
from sdevid.models.temporal import History
from sdevid.sde import interpolant
from sdevid.sde.birth import over_temperature
from sdevid.transfer import to_device
from sdevid.types import units

_WAVES = 4  # octaves of s


class Memory(NamedTuple):
    """What a bridge is conditioned on beside the frame x0 that it leaves."""

    anchor: Float[Tensor, "batch *latent"] | None = None  # a frame of the past
    level: Float[Tensor, " batch"] | None = None  # sd of the noise on x0, latent units


class BridgeDrift(nn.Module):
    """b(X, s | x0, anchor, w, c), regressed on the interpolant's rate.

    The network sees X relative to the interpolant of a frame that does not change, in units of the
    bridge's noise, and predicts how b differs from that interpolant's rate; it starts at zero. Its
    output is softly bounded, so that no frame, however unlike those of training, makes the next
    ones grow without end. With `follmer.anchor` it also sees a frame of the past, and with
    `follmer.context_noise` it is given the noise level of x0: so it can correct its own errors.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        sde = config.sde
        self.noise, self.is_map = config.follmer.noise, sde.latent == "map"
        self.rate = float(config.frames_per_unit())
        self.bound = config.follmer.drift_bound
        self.condition = nn.Linear(sde.content_size + config.encoder.features, sde.hidden)
        self.anchored, self.noisy = config.follmer.anchor, config.follmer.context_noise > 0
        self.time = nn.Linear(2 * _WAVES + (3 if self.noisy else 2), sde.hidden)
        inputs = (3 if self.anchored else 2) * sde.latent_size
        self.network = state_network(sde, sde.latent_size, inputs=inputs)
        features = config.encoder.features
        sides = config.map_shape if self.is_map else None
        self.places = PlaceConditions(sde, features, 0, sides) if by_place(sde) else None

    def eps(self, span: Float[Tensor, " batch"], like: State) -> Tensor:
        """Compute the noise's amplitude over an interval of `span` units of time, to broadcast."""
        return (self.noise * span.sqrt()).view(-1, *[1] * (like.dim() - 1))

    def conditions(
        self, w: Float[Tensor, "batch content *cells"], c: Float[Tensor, "batch cells features"]
    ) -> Float[Tensor, "batch hidden *map"]:
        """Compute the network's condition for a clip once, given the history's summary `c`."""
        condition: Tensor = self.condition(torch.cat([pooled(w), c.mean(1)], dim=1))
        condition = condition[:, :, None, None] if self.is_map else condition
        return condition if self.places is None else condition + self.places(c, w)[0]

    def forward(
        self,
        x: State,
        s: Float[Tensor, " batch"],
        x0: State,
        span: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch hidden *map"],
        memory: Memory | None = None,
    ) -> State:
        """Evaluate b at `x` and `s` in [0, 1), from `x0`, for frames `span` units of time apart."""
        angles = math.pi * s[:, None] * 2.0 ** torch.arange(_WAVES, device=s.device)
        anchor, level = memory or Memory()
        pace = torch.stack([s, (span * self.rate).clamp(min=1e-3).log()], dim=1)
        if self.noisy:
            level = torch.zeros_like(s) if level is None else level
            pace = torch.cat([pace, level[:, None]], dim=1)
        moment = self.time(torch.cat([angles.sin(), angles.cos(), pace], dim=1))
        condition = condition + (moment[:, :, None, None] if self.is_map else moment)
        eps, at = self.eps(span, x), s.view(-1, *[1] * (x.dim() - 1))
        apart = (x - (1 - at + at.square()) * x0) / eps
        inputs = [apart, x0]
        if self.anchored:
            inputs.append(torch.zeros_like(x0) if anchor is None else anchor - x0)
        output = self.network(torch.cat(inputs, dim=1), condition)
        output = self.bound * torch.tanh(output / self.bound)
        drift: Tensor = (2 * at - 1) * x0 + eps * output
        return drift


class Follmer(HistoryModel):
    """Frames as latents, and a bridge that generates each from the one before it."""

    prior_parts = ("start_prior", "bridge", "guide")
    guide_pulls = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        with self.named("posterior"):
            self.posterior = FramePosterior(config, self.sides)
        with self.named("bridge"):
            self.bridge = BridgeDrift(config)

    def posterior_at_frames(self, tokens: Tokens) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x), and q(z | x) at every frame."""
        marginals: tuple[Gaussian, Gaussian] = self.posterior(tokens)
        return marginals

    @property
    def cell(self) -> int:
        """Ticks of a step of the bridge at the training frame rate."""
        return self.config.step_ticks(self.config.follmer.steps)

    def transition(
        self, w: Float[Tensor, "batch content *cells"], context: Context, sampler: SamplerConfig
    ) -> Transition:
        """Bridge from frame to frame by Euler-Maruyama, `steps_per_frame` steps each.

        Raises UserError where the sampler asks for another solver.
        """
        if sampler.solver not in (None, "euler_maruyama"):
            raise UserError(
                f"solver is {sampler.solver}, but model_type follmer is solved by euler_maruyama "
                "alone"
            )
        noise = self.brownian(sampler.seed, sampler.serials(w))
        steps = sampler.steps_per_frame or self.config.follmer.steps
        histories = (context.history, context.negative)
        conditions = [self.conditions(w, history) for history in histories if history]
        anchors = Anchors(self.config)

        def move(z: State, ticks: Int64[Tensor, "batch points"]) -> PathSegment:
            grid, saved = solver_grid(ticks, self.cell, steps)
            dw = sampler.temperature * noise.increments(grid)
            ticks, grid = to_device(ticks, z.device), to_device(grid, z.device)
            states, nats = [], z.new_zeros(len(z))
            for k, (first, last) in enumerate(pairwise(saved)):
                shift = self.future_shift(context.future, ticks[:, k : k + 1])
                shifted = [one if shift is None else one + shift for one in conditions]
                part = grid[:, first : last + 1], dw[:, first:last]
                z, spent = self._cross(z, *part, shifted, sampler, anchors.at(z))
                states.append(z)
                nats = nats + spent
            spent = over_temperature(nats, sampler.temperature)
            return PathSegment(torch.stack(states, dim=1), spent)

        return move

    def conditions(self, w: Float[Tensor, "batch content *cells"], history: History) -> Tensor:
        """Compute the bridge's condition for a clip, (batch, hidden) and, for a map, (.., 1, 1)."""
        return self.bridge.conditions(w, history.summary)

    def future_shift(
        self, future: FutureFrames | None, at: Int64[Tensor, "batch times"]
    ) -> Tensor | None:
        """Compute what observed frames ahead of `at` add to it, (batch * times, ...)."""
        if self.guide is None or future is None:
            return None
        term: BridgeTerm = self.guide(future, at)
        return term.flatten().shift

    def _cross(
        self,
        x0: State,
        grid: Int64[Tensor, "batch points"],
        dw: Float[Tensor, "batch steps *latent"],
        conditions: list[Tensor],
        sampler: SamplerConfig,
        memory: Memory,
    ) -> tuple[State, Float[Tensor, " batch"]]:
        """Solve one bridge, from frame to frame; also return the nats that guidance spent on it.

        Equal times leave the state as it is. `conditions`: the text's, and the negative text's.
        """
        wide = (-1, *[1] * (x0.dim() - 1))
        span = units(grid[:, -1] - grid[:, 0])
        moves = span > 0
        span = span.where(moves, torch.ones_like(span))
        share, eps = units(grid - grid[:, :1]) / span[:, None], self.bridge.eps(span, x0)
        chosen = sampler.bridge_diffusion or self.config.follmer.diffusion
        x, nats = x0, x0.new_zeros(len(x0))
        for k, increment in enumerate(dw.unbind(1)):
            s, ds = share[:, k], share[:, k + 1] - share[:, k]
            kind = chosen if k else "interpolant"  # at s = 0 there is no score
            drifts = [self.bridge(x, s, x0, span, one, memory) for one in conditions]
            drift, g = interpolant.rates(x, s.view(wide), x0, drifts[0], eps, kind)
            if len(drifts) > 1:
                added = (sampler.guidance_scale - 1) * (drifts[0] - drifts[1])
                drift = drift + added
                nats = nats + 0.5 * ds * (added / g).square().flatten(1).sum(1)
            x = x + drift * ds.view(wide) + g * increment / span.sqrt().view(wide)
        return torch.where(moves.view(wide), x, x0), nats * moves


class Anchors:
    """Memory of a generated video's bridges: its first state, or the state of every n-th frame."""

    def __init__(self, config: Config) -> None:
        self.settings = config.follmer
        self._anchor: State | None = None
        self._age = 0  # frames

    def at(self, z: State) -> Memory:
        """Recall the memory of the bridge that leaves `z`; called once a frame, in order."""
        if self._anchor is None or self._age == self.settings.anchor_every:
            self._anchor, self._age = z, 0
        self._age += 1
        level = z.new_full((len(z),), self.settings.context_noise_told)
        return Memory(self._anchor, level)
