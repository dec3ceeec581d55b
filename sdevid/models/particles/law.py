"""The prior of the particles' motion: drift by attention, diffusion by content, a length."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.particles.groups import Membership, membership
from sdevid.models.particles.state import Content, ParticleState, layout_of, mlp, scaled
from sdevid.models.particles.walls import Walls
from sdevid.sde import carried_noise

SPREAD = 3.0  # most by which log g_k leaves its common value
HEADS = 4
WAVES = 4  # octaves in which a place is told to a drift or a diffusion that depends on it


class ParticleConditions(NamedTuple):
    """The law's dependence on the content, computed once a clip."""

    root: carried_noise.Root
    diffusion: Float[Tensor, "batch particles 1"]  # g_k, pixel/sqrt(frame), as of order 1
    token: Float[Tensor, "batch particles hidden"]
    presence: Float[Tensor, "batch particles 1"]
    group: Membership | None = None  # by which the prior's steps are averaged


class Jitter(NamedTuple):
    """Noise of the places beside that of the velocities (order 2)."""

    noise: Float[Tensor, " 1"]  # s, pixel/sqrt(frame)
    friction: Float[Tensor, " 1"] | float  # rate at which a velocity fades, 1/frame


class Motion(NamedTuple):
    """Drift and diffusion of the particles in one state."""

    pull: Float[Tensor, "batch particles 2"]  # h, pixel/frame, or pixel/frame^2 of order 2
    diffusion: Float[Tensor, "batch particles axes"]  # g, one for both axes or one for each
    jitter: Jitter | None = None


class Depth(NamedTuple):
    """The law of presence's depth: du = -rate u dt + noise dB, in logits and frames."""

    rate: Float[Tensor, " 1"]
    noise: Float[Tensor, " 1"]


class ParticleLaw(nn.Module):
    """dp_k = h(z, w)_k dt + g_k dB_k with E dB_k dB_j = R_kj dt; see `sde/carried_noise`.

    Lengths are in pixels, times in training frames. Of second order, noise and drift act on the
    velocities; with a jitter the places have noise of their own. `walls`, if there are any,
    reflect. g_k depends on presence and appearance alone. With `by_place`, sines of the place add
    to h, and h learns from the path's divergence alone.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.carried, self.side = config.sde.noise == "carried", config.frame_size
        hidden, inputs, self.group = settings.hidden, settings.appearance + 1, settings.group
        self.log_diffusion = _logarithm(settings.diffusion_start)
        self.log_length = _logarithm(settings.length_start)
        self.register_buffer("calibration", torch.zeros(1))  # added to log g after training
        self.calibration: Tensor
        self.walls = Walls(config.frame_size) if settings.walls else None
        self.log_friction = self.log_jitter = self.log_stride = None
        if settings.friction_start:
            self.log_friction = _logarithm(settings.friction_start)
        if settings.jitter_start:
            self.log_jitter = _logarithm(settings.jitter_start)
        if self.layout.has_pose:
            self.log_stride = _logarithm(settings.stride_start)
        self.by_content = mlp(inputs, hidden // 2, 1, 0.0)
        self.token = nn.Linear(inputs, hidden)
        self.most_diffusion = config.frame_size / 8
        self.most_pull = config.frame_size / 4 if settings.patch else 0.0  # of things, stays finite
        self.by_state = config.sde.noise == "diagonal"
        self.moving = nn.Linear(2 * self.layout.order, hidden)
        if self.by_state:
            self.near = nn.Linear(2 * 2 * 2 * WAVES, hidden)
            self.own_diffusion = nn.Sequential(
                nn.Linear(2 * hidden, hidden), nn.SiLU(), scaled(nn.Linear(hidden, 2), 0.0)
            )
        self.attended = nn.Linear(hidden, 3 * hidden)
        self.drift = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), scaled(nn.Linear(hidden, 2), 0.0)
        )
        self.text = None
        if config.text.encoder != "none":
            self.text = scaled(nn.Linear(config.encoder.features, hidden), 0.0)
        if self.layout.has_depth:
            self.most_depth_noise = settings.depth_noise
            self.depth_noise = nn.Parameter(torch.zeros(1))
            self.log_depth_rate = _logarithm(0.08)
        self.by_place = scaled(nn.Linear(4 * WAVES, 2), 0.0) if settings.drift_by_place else None

    def conditions(
        self,
        content: Content,
        text: Float[Tensor, "batch features"] | None = None,
        grouped: bool = False,
    ) -> ParticleConditions:
        """Read diffusion, correlations and what the drift needs from the content.

        With `grouped`, what draws one thing moves as one, if `particles.group` is not 0.
        """
        condition = content.condition
        own = SPREAD * (self.by_content(condition).float() / SPREAD).tanh()
        token = self.token(condition)
        if self.text is not None and text is not None:
            token = token + self.text(text)[:, None]
        group = None
        if self.carried:
            born = content.born.float()
            if grouped and self.group:
                group = membership(born, content.logit, self.group)
                born = group @ born
            root = carried_noise.root(born, self.log_length.exp())
        else:
            root = carried_noise.independent(content.born)
        presence = content.logit.sigmoid()
        diffusion = (self.log_diffusion + own + self.calibration).exp()
        return ParticleConditions(root, diffusion, token, presence, group)

    def pull(
        self, z: ParticleState, conditions: ParticleConditions
    ) -> Float[Tensor, "batch particles 2"]:
        """Compute h, in pixel/frame, or in pixel/frame^2 for a state of second order."""
        return self.motion(z, conditions).pull

    def motion(self, z: ParticleState, conditions: ParticleConditions) -> Motion:
        """Compute drift and diffusion; each particle attends to the others by their presence."""
        place, velocity, _ = self.layout.split(z)
        at = 2 * place / self.side - 1
        moving = at if velocity is None else torch.cat([at, velocity / 4], dim=-1)
        token = conditions.token + self.moving(moving)
        if self.by_state:
            ahead = at if velocity is None else at + 2 * velocity / self.side
            token = token + self.near(waves(torch.cat([at, ahead], dim=-1)))
        token = functional.silu(token)
        query, key, value = (
            torch.unflatten(part, -1, (HEADS, -1)).transpose(1, 2)
            for part in self.attended(token).chunk(3, dim=-1)
        )
        seen = conditions.presence.clamp(min=1e-6).log().transpose(1, 2)[:, None]
        others = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen.to(query.dtype)
        )
        inputs = torch.cat([token, others.transpose(1, 2).flatten(2)], dim=-1)
        drift: Tensor = self.drift(inputs).float()
        if self.by_place is not None:
            drift = drift + self.by_place(waves(at.clamp(-1, 1))).float()
        if self.most_pull:
            drift = self.most_pull * (drift / self.most_pull).tanh()
        if self.log_friction is not None and velocity is not None:
            drift = drift - self.log_friction.exp() * velocity
        diffusion = conditions.diffusion
        if self.by_state:
            own = SPREAD * (self.own_diffusion(inputs).float() / SPREAD).tanh()
            diffusion = diffusion * own.exp()
            diffusion = diffusion / (1 + diffusion / self.most_diffusion)
        return Motion(drift, diffusion, self.jitter())

    def jitter(self) -> Jitter | None:
        """Compute the noise of the places, or None where they have none of their own."""
        if self.log_jitter is None:
            return None
        friction = 0.0 if self.log_friction is None else self.log_friction.exp()
        return Jitter(self.log_jitter.exp(), friction)

    def stride(self) -> Float[Tensor, " 1"]:
        """Compute the way on which a pose goes round once, in pixels."""
        assert self.log_stride is not None
        return self.log_stride.exp()

    def depth(self) -> Depth:
        """Compute the depth's rate (1/frame) and noise (logits/sqrt(frame))."""
        noise = self.most_depth_noise * self.depth_noise.sigmoid()
        return Depth(self.log_depth_rate.exp(), noise)


def _logarithm(start: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([math.log(start)]))


def waves(at: Float[Tensor, "*batch places"]) -> Float[Tensor, "*batch waves"]:
    """Compute sines and cosines of places in [-1, 1], in `WAVES` octaves from half a period on."""
    octaves = math.pi / 2 * 2 ** torch.arange(WAVES, device=at.device)
    angles = (at[..., None] * octaves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
