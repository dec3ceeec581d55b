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
from sdevid.models import aim
from sdevid.models.bridge_conditioning import BridgeTerm
from sdevid.models.encoder import Sides, lay_out
from sdevid.models.reflection import Walls, reflected
from sdevid.models.transformer import StateTransformer
from sdevid.models.transport import AXES
from sdevid.sde.problem import Diffusion, Network, Reading

State = Float[Tensor, "batch *latent"]  # (batch, size) or (batch, channels, height, width)
Driven = Float[Tensor, "batch *driven"]  # what noise acts on: the state, or its velocities
DiffusionAt = Float[Tensor, "batch *#driven"]  # g, broadcastable to what it drives


class StateNetwork(nn.Module):
    """Hidden layers over the state; a precomputed condition shifts the first.

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

    def silu_layers(self, condition: Tensor) -> tuple[Network, Tensor] | str:
        """Give the layers' weights and the shift that the first adds to its product, float32.

        Or the reason why there are none: a map's layers are convolutions.
        """
        layers = [self.first, *self.hidden, self.last]
        if not all(isinstance(layer, nn.Linear) for layer in layers):
            return "its layers are convolutions"
        first, *pairs = ((layer.weight, layer.bias) for layer in layers)
        return Network(first[0], tuple(pairs[:-1]), pairs[-1]), condition.float() + first[1]

    def forward(self, z: State, condition: Tensor) -> Tensor:
        """Evaluate the layers at `z`, the first shifted by `condition`.

        With `sde.checkpoint` they are computed again in the backward pass.
        """
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
    """Build the network over the state that `sde.backbone` names."""
    chosen = StateTransformer if config.backbone == "transformer" else StateNetwork
    return chosen(config, outputs, inputs)


class Conditions(NamedTuple):
    """What the networks are conditioned on for a clip, computed once before the solve."""

    drift: Tensor  # (batch, hidden) or (batch, hidden, 1, 1)
    diffusion: Tensor  # g itself, (batch, size) or (batch, size, 1, 1); with a slope, its level a
    slope: Tensor | None = None  # b, where g depends on z
    curve: Tensor | None = None  # c, likewise
    walls: Walls | None = None  # of what is carried
    anchor: State | None = None  # positions of the path's start, or of an earlier frame

    def repeated(self, count: int) -> Conditions:
        """Repeat each clip's `count` times in a row."""
        drift, diffusion = (x.repeat_interleave(count, 0) for x in self[:2])
        bends = (None if x is None else x.repeat_interleave(count, 0) for x in self[2:])
        return Conditions(drift, diffusion, *bends)


class PlaceConditions(nn.Module):
    """The summary's effect on each cell: a shift of the drift's first layer, and of g's level.

    A content map adds its own. g's level starts the same everywhere.
    """

    def __init__(self, config: SDEConfig, features: int, levels: int, sides: Sides) -> None:
        super().__init__()
        self.sides, self.sizes = sides, [config.hidden, levels]
        self.has_map = config.content == "map"
        inputs = features + (config.content_size if self.has_map else 0)
        self.linear = nn.Linear(inputs, config.hidden + levels, bias=False)
        with torch.no_grad():
            self.linear.weight[config.hidden :] = 0

    def forward(
        self, c: Float[Tensor, "batch cells features"], w: Float[Tensor, "batch content *cells"]
    ) -> tuple[Tensor, Tensor]:
        """Compute the drift's shift (batch, hidden, *map) and g's level (batch, levels, *map)."""
        inputs = torch.cat([c, w.flatten(2).transpose(1, 2)], dim=2) if self.has_map else c
        laid = lay_out(self.linear(inputs), self.sides)
        shift, level = torch.split(laid, self.sizes, dim=1)
        return shift, level


def pooled(w: Float[Tensor, "batch content *cells"]) -> Float[Tensor, "batch content"]:
    """Average a content map over its places; return a vector as it is."""
    return w.flatten(2).mean(2) if w.dim() > 2 else w


def by_place(config: SDEConfig) -> bool:
    """Check whether each cell of a map is conditioned on its own context."""
    return config.latent == "map" and config.conditions == "cells"


class Prior(nn.Module):
    """dz = h(z, w, c) dt + g(w, c) dW, time-homogeneous, diagonal noise.

    With `anchor` h also sees how far the positions are from those of an earlier frame.
    With `order: 2` z = (q, v), and h and g are those of v alone: dq = v dt, dv = h dt + g dW.
    With `noise: diagonal`, g_i = floor + softplus(a_i + b_i tanh z_i + c_i tanh^2 z_i), a, b and c
    read from w and the history's summary; in order 2 z_i is v_i. With `friction_start` the drift of
    v has -f v too, f learnt.
    The drift is given in Ito's calculus, as the solver takes it: with `stratonovich`, h is the
    other's, and 1/2 g dg/dz is added (Kloeden & Platen 1992, section 4.9).
    """

    def __init__(
        self,
        config: SDEConfig,
        features: int,
        *,
        sides: Sides = None,
        stratonovich: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.stratonovich = stratonovich
        inputs = config.content_size + features
        self.condition = nn.Linear(inputs, config.hidden)
        seen = config.state_size + (config.latent_size if config.anchor else 0)
        self.drift = state_network(config, config.latent_size, seen)
        self.log_friction = None
        if config.friction_start:
            self.log_friction = nn.Parameter(torch.tensor([math.log(config.friction_start)]))
        self.diagonal = config.noise == "diagonal"
        levels = config.latent_size * (3 if self.diagonal else 1)
        self.level = nn.Linear(inputs, levels)
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)
        self.places = None
        if by_place(config):
            self.places = PlaceConditions(config, features, levels, sides)
        start = config.diffusion_start - config.diffusion_floor
        self.start = math.log(math.expm1(max(start, 1e-4)))

    @property
    def unlayered(self) -> str:
        """Say what of drift and diffusion no SiLU layers over the state hold; empty if nothing."""
        if self.config.anchor:
            return "the drift sees an anchor"
        return "" if self.log_friction is None else "the drift has a friction"

    def conditions(
        self,
        w: Float[Tensor, "batch content *cells"],
        c: Float[Tensor, "batch cells features"],
        walls: Walls | None = None,
    ) -> Conditions:
        """Compute what the networks are conditioned on, given the history's summary `c`."""
        inputs = torch.cat([pooled(w), c.mean(1)], dim=1)
        drift = self.condition(inputs)
        level = self.level(inputs).float()
        if self.config.latent == "map":
            drift, level = drift[:, :, None, None], level[:, :, None, None]
        if self.places is not None:
            here, spread = self.places(c, w)
            drift, level = drift + here, level + spread.float()
        if not self.diagonal:
            return Conditions(drift, self._of_terms(level).at(level), walls=walls)
        level, slope, curve = level.chunk(3, dim=1)
        return Conditions(drift, level, slope, curve, walls)

    def anchored(self, conditions: Conditions, start: State) -> Conditions:
        """Add the anchor of a path that begins at `start`, with `sde.anchor`."""
        if not self.config.anchor:
            return conditions
        return conditions._replace(anchor=start[:, : self.config.latent_size])

    def _of_terms(
        self, level: Tensor, slope: Tensor | None = None, curve: Tensor | None = None
    ) -> Diffusion:
        floor = self.config.diffusion_floor
        return Diffusion(level, slope, curve, floor, self.start, self.stratonovich)

    def diffusion_law(self, conditions: Conditions) -> Diffusion | Tensor:
        """Give g as a function of what it drives, or g itself where it does not depend on it."""
        if conditions.slope is None:
            return conditions.diffusion
        return self._of_terms(conditions.diffusion, conditions.slope, conditions.curve)

    def _driven(self, z: Float[Tensor, "*any"]) -> Float[Tensor, "*any2"]:
        """Select the part of `z` that noise acts on."""
        if self.config.order == 1:
            return z
        axis = -1 if self.config.latent == "vector" else -3
        return z.narrow(axis, self.config.latent_size, self.config.latent_size)

    def diffusion(self, z: Float[Tensor, "*any"], conditions: Conditions) -> Float[Tensor, "*any2"]:
        """Evaluate g at `z`, broadcastable to what it drives; axes may come before the batch."""
        law = self.diffusion_law(conditions)
        return law if isinstance(law, Tensor) else law.at(self._driven(z))

    def forward(
        self, z: State, conditions: Conditions, bridge: BridgeTerm | None = None
    ) -> tuple[Driven, DiffusionAt]:
        """Evaluate drift and diffusion at `z`, float32; the diffusion broadcasts to what it drives.

        `bridge` is what an observed frame ahead adds to the drift.
        """
        return self.rates(z, conditions, bridge)[:2]

    def _learnt(self, z: State, condition: Tensor, known: Conditions) -> Driven:
        """Evaluate the drift's network; between walls, of the path that they turn back."""
        if self.config.anchor:
            here = z[:, : self.config.latent_size]
            back = torch.zeros_like(here) if known.anchor is None else known.anchor - here
            z = torch.cat([z, back], dim=1)
        if known.walls is None:
            free: Tensor = self.drift(z, condition)
            return free
        z, turn = reflected(z, known.walls)
        drift = self.drift(z, condition)
        return torch.cat([turn * drift[:, :AXES], drift[:, AXES:]], dim=1)

    def rates(
        self, z: State, conditions: Conditions, bridge: BridgeTerm | None = None
    ) -> tuple[Driven, DiffusionAt, DiffusionAt | None]:
        """Evaluate drift and diffusion as `forward`, and dg/dz: None where g is constant in z."""
        condition = conditions.drift if bridge is None else conditions.drift + bridge.shift
        drift = self._learnt(z, condition, conditions)
        if bridge is not None:
            place = z.narrow(1, 0, self.config.latent_size)  # of second order, without velocity
            drift = drift + bridge.pull * (bridge.target - place)
        if self.log_friction is not None:
            drift = torch.addcmul(drift, self.log_friction.exp(), self._driven(z), value=-1)
        law = self.diffusion_law(conditions)
        if isinstance(law, Tensor):
            return drift, law, None
        diffusion, slope = law.with_slope(self._driven(z))
        more = law.correction(diffusion, slope)
        return drift if more is None else drift + more, diffusion, slope


class Control(nn.Module):
    """u(z, t, c^_t) and the posterior's width r(z, t, c^_t) in (0, 1).

    The network f speaks in units of the diffusion before training, so that the posterior's own
    motion, g u and r g, stays where it is while g is learnt. With `posterior_drift: control` that
    is g u = f, beside the prior's drift; with `own`, the posterior's whole drift is f, and
    g u = f - h, so that h too is learnt without moving the posterior. |u| is bounded softly; u
    starts at 0 and r at 0.95. Of a frame carried in `layers` the control also leads each of them to
    its place (`sdevid.models.aim`), which the condition then holds behind the token's.
    """

    def __init__(self, config: SDEConfig, features: int, layers: int = 0) -> None:
        super().__init__()
        self.aim = aim.channels(layers) if layers else 0
        self.reading = Reading(
            bound=config.control_bound,
            width=config.posterior_width == "chain",
            unit=config.diffusion_start,
            own=config.posterior_drift == "own",
        )
        self.condition = nn.Linear(features, config.hidden)
        outputs = config.latent_size * (2 if self.reading.width else 1)
        self.network = state_network(config, outputs, config.state_size)

    def conditions(
        self, tokens: Float[Tensor, "batch steps cells features"], sides: Sides
    ) -> tuple[Tensor, ...]:
        """Compute one condition a solver step from the token that the step sees."""
        return lay_out(self.condition(tokens), sides).unbind(1)

    def forward(
        self, z: State, condition: Tensor, drift: Driven, diffusion: DiffusionAt
    ) -> tuple[Driven, Driven | None]:
        """Evaluate u and r at `z` for the prior's drift and diffusion; r None without a width."""
        if not self.aim:
            return self.reading(self.network(z, condition), drift, diffusion)
        shift, goal = torch.split(condition, [condition.shape[1] - self.aim, self.aim], dim=1)
        outputs, unit = self.network(z, shift), self.reading.unit or 1.0
        lead = aim.pull(z, drift, goal.float()) / unit
        led = torch.cat([outputs[:, :AXES] + lead, outputs[:, AXES:]], dim=1)
        return self.reading(led, drift, diffusion)
