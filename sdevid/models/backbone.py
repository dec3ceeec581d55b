"""The neural SDE backbone: prior drift, diffusion and posterior control."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sdevid.config import SDEConfig
from sdevid.models.encoder import lay_out
from sdevid.models.guide import Toward
from sdevid.models.transformer import StateTransformer

State = Float[Tensor, "batch *latent"]  # (batch, size) or (batch, channels, height, width)


class StateNetwork(nn.Module):
    """Hidden layers over the state, the first shifted by a condition made beforehand.

    Over a vector the layers are linear; over a map they are 3 x 3 convolutions. The last layer
    starts at zero.
    """

    def __init__(self, config: SDEConfig, outputs: int, inputs: int | None = None) -> None:
        super().__init__()
        self.again = config.checkpoint
        self.first = self._layer(config, inputs or config.latent_size, config.hidden)
        self.hidden = nn.ModuleList(
            self._layer(config, config.hidden, config.hidden) for _ in range(config.depth - 1)
        )
        self.last = self._layer(config, config.hidden, outputs)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    @staticmethod
    def _layer(config: SDEConfig, inputs: int, outputs: int) -> nn.Linear | nn.Conv2d:
        if config.latent == "vector":
            return nn.Linear(inputs, outputs)
        return nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, z: State, condition: Tensor) -> Tensor:
        if not self.again or not torch.is_grad_enabled():
            return self._layers(z, condition)
        kept: Tensor = checkpoint(
            self._layers, z, condition, use_reentrant=False, preserve_rng_state=False
        )
        return kept

    def _layers(self, z: State, condition: Tensor) -> Tensor:
        x = functional.silu(self.first(z) + condition)
        for layer in self.hidden:
            x = functional.silu(layer(x))
        out: Tensor = self.last(x)
        return out.float()


def state_network(
    config: SDEConfig, outputs: int, inputs: int | None = None
) -> StateNetwork | StateTransformer:
    """The network over the state that `sde.backbone` names."""
    chosen = StateTransformer if config.backbone == "transformer" else StateNetwork
    return chosen(config, outputs, inputs)


class Conditions(NamedTuple):
    """What the networks are told of a clip, worked out once before the solve."""

    drift: Tensor  # (batch, hidden) or (batch, hidden, 1, 1)
    diffusion: Tensor  # g itself, (batch, size) or (batch, size, 1, 1); with a slope, its level a
    slope: Tensor | None  # b, where g depends on z

    def repeated(self, count: int) -> Conditions:
        """Each clip's, `count` times in a row."""
        slope = None if self.slope is None else self.slope.repeat_interleave(count, 0)
        drift, diffusion = (x.repeat_interleave(count, 0) for x in (self.drift, self.diffusion))
        return Conditions(drift, diffusion, slope)


class Prior(nn.Module):
    """dz = h(z, w, c) dt + g(w, c) dW, time-homogeneous, diagonal noise.

    With `order: 2` z = (q, v), and h and g are those of v alone: dq = v dt, dv = h dt + g dW.
    With `noise: diagonal`, g_i = floor + softplus(a_i + b_i tanh z_i), a and b read from w and c;
    in order 2 z_i is v_i.
    The drift is given in Ito's calculus, as the solver takes it: with `stratonovich`, h is the
    other's, and 1/2 g dg/dz is added (Kloeden & Platen 1992, section 4.9).
    """

    def __init__(self, config: SDEConfig, features: int, *, stratonovich: bool = False) -> None:
        super().__init__()
        self.config = config
        self.stratonovich = stratonovich
        known = config.content_size + features
        self.condition = nn.Linear(known, config.hidden)
        self.drift = state_network(config, config.latent_size, config.state_size)
        self.diagonal = config.noise == "diagonal"
        self.level = nn.Linear(known, config.latent_size * (2 if self.diagonal else 1))
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)
        start = config.diffusion_start - config.diffusion_floor
        self.start = math.log(math.expm1(max(start, 1e-4)))

    def conditions(
        self, w: Float[Tensor, "batch content"], c: Float[Tensor, "batch features"]
    ) -> Conditions:
        known = torch.cat([w, c], dim=1)
        drift = self.condition(known)
        level = self.level(known).float()
        if self.config.latent == "map":
            drift, level = drift[:, :, None, None], level[:, :, None, None]
        if not self.diagonal:
            return Conditions(drift, self._positive(level), None)
        level, slope = level.chunk(2, dim=1)
        return Conditions(drift, level, slope)

    def _positive(self, level: Tensor) -> Tensor:
        return self.config.diffusion_floor + functional.softplus(level + self.start)

    def _driven(self, z: State) -> State:
        """What of `z` noise acts on."""
        if self.config.order == 1:
            return z
        axis = -1 if self.config.latent == "vector" else -3
        return z.narrow(axis, self.config.latent_size, self.config.latent_size)

    def diffusion(self, z: State, conditions: Conditions) -> State:
        """g at `z`, broadcastable to what it drives."""
        if conditions.slope is None:
            return conditions.diffusion
        return self._positive(conditions.diffusion + conditions.slope * torch.tanh(self._driven(z)))

    def forward(
        self, z: State, conditions: Conditions, toward: Toward | None = None
    ) -> tuple[State, State]:
        """Drift and diffusion at `z`, float32, the diffusion broadcastable to what it drives.

        `toward` is what an observed frame ahead adds to the drift.
        """
        return self.rates(z, conditions, toward)[:2]

    def rates(
        self, z: State, conditions: Conditions, toward: Toward | None = None
    ) -> tuple[State, State, State | None]:
        """Drift and diffusion as `forward`, and dg/dz; None where g does not depend on z."""
        if toward is None:
            drift = self.drift(z, conditions.drift)
        else:
            drift = self.drift(z, conditions.drift + toward.shift)
            drift = drift + toward.pull * (toward.target - z)
        if conditions.slope is None:
            return drift, conditions.diffusion, None
        bend = torch.tanh(self._driven(z))
        level = conditions.diffusion + conditions.slope * bend
        diffusion = self._positive(level)
        rise = torch.sigmoid(level + self.start) * conditions.slope * (1 - bend.square())
        if self.stratonovich:
            drift = drift + 0.5 * diffusion * rise
        return drift, diffusion, rise


class Control(nn.Module):
    """u(z, t, c^_t) and the posterior's width r(z, t, c^_t) in (0, 1).

    The network f speaks in units of the diffusion before training, so that the posterior's own
    motion, g u and r g, stays where it is while g is learnt. With `posterior_drift: control` that
    is g u = f, beside the prior's drift; with `own`, the posterior's whole drift is f, and
    g u = f - h, so that h too is learnt without moving the posterior. |u| is bounded softly; u
    starts at 0 and r at 0.95.
    """

    def __init__(self, config: SDEConfig, features: int) -> None:
        super().__init__()
        self.bound, self.unit = config.control_bound, config.diffusion_start
        self.chain = config.posterior_width == "chain"
        self.own_drift = config.posterior_drift == "own"
        self.open = 3.0
        self.condition = nn.Linear(features, config.hidden)
        outputs = config.latent_size * (2 if self.chain else 1)
        self.network = state_network(config, outputs, config.state_size)

    def conditions(
        self, tokens: Float[Tensor, "batch steps cells features"], side: int | None
    ) -> tuple[Tensor, ...]:
        """One condition a solver step from the token that the step sees."""
        return lay_out(self.condition(tokens), side).unbind(1)

    def forward(
        self, z: State, condition: Tensor, drift: State, diffusion: State
    ) -> tuple[State, State | None]:
        """u and r at `z`, where the prior has this drift and diffusion; r None without a width."""
        out = self.network(z, condition)
        motion, width = out.chunk(2, dim=1) if self.chain else (out, None)
        motion = self.unit * motion - drift if self.own_drift else self.unit * motion
        control = self.bound * torch.tanh(motion / (self.bound * diffusion))
        if width is None:
            return control, None
        return control, torch.sigmoid(width + self.open + (self.unit / diffusion).log())
