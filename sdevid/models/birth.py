"""The start as an SDE from nothing: p(w, z_0 | c, e) by the chain of `sde/birth.py`."""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.backbone import StateNetwork
from sdevid.models.encoder import Sides, lay_out
from sdevid.models.gaussian import Gaussian
from sdevid.models.start import Guidance, PriorStart, SampledStart, StartDraw
from sdevid.models.temporal import History
from sdevid.models.transformer import StateTransformer
from sdevid.sde import birth
from sdevid.sde.birth import Predict, Schedule
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Serial

_WAVES = 8  # octaves of log l
_LOWEST = 0.3  # radians per unit of log l in the lowest octave

Joint = Float[Tensor, "batch size"]  # z_0 laid flat, then w


class EndpointNetwork(nn.Module):
    """Y(X, l, c, e) = X + sqrt(l) N(X, l, c, e): the predicted endpoint of a birth.

    X is the answer for an endpoint of N(0, 1), and sqrt(l) the spread that is then left, so N is of
    order 1; it starts at zero. Over a map N is a transformer over the cells, conditioned by
    adaptive layer norms on each cell's own context c, the text e and the time left; a w without
    places enters at every cell and leaves as the mean over them.
    """

    def __init__(self, config: Config, sides: Sides) -> None:
        super().__init__()
        settings, features = config.birth, config.encoder.features
        width = {"hidden": settings.hidden, "depth": settings.depth, "heads": settings.heads}
        sde = config.sde.model_copy(update=width)
        self.sides, self.sizes = sides, (sde.state_size, sde.content_size)
        self.has_map = sde.content == "map"
        size = sum(self.sizes)
        network = StateNetwork if sides is None else StateTransformer
        self.network = network(sde, size, size)
        self.context = nn.Linear(features, sde.hidden)
        self.text = nn.Linear(features, sde.hidden) if config.text.encoder != "none" else None
        self.time = nn.Sequential(
            nn.Linear(2 * _WAVES, sde.hidden), nn.SiLU(), nn.Linear(sde.hidden, sde.hidden)
        )

    def conditions(self, history: History) -> Float[Tensor, "batch hidden *map"]:
        """Compute what the network is conditioned on for a clip, once for all steps."""
        projected = self.context(history.summary)
        if self.text is not None and history.text is not None:
            projected = projected + self.text(history.text)[:, None]
        return lay_out(projected, self.sides)

    def forward(
        self,
        x: Float[Tensor, "batch steps size"],
        left: Float[Tensor, "batch steps"],
        conditions: Float[Tensor, "batch hidden *map"],
    ) -> Float[Tensor, "batch steps size"]:
        """Predict the endpoint Y from states `x` of births with time `left`."""
        steps = x.shape[1]
        rates = _LOWEST * 2.0 ** torch.arange(_WAVES, device=x.device)
        angles = left.log()[..., None] * rates
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1)).flatten(0, 1)
        conditions = conditions.repeat_interleave(steps, 0)
        conditions = conditions + time.view(*time.shape, *[1] * (conditions.dim() - 2))
        unit = x / (1 - left + 1e-3).sqrt()[..., None]  # X_s has variance about s
        out = self._leave(self.network(self._enter(unit.flatten(0, 1)), conditions))
        return x + left.sqrt()[..., None] * torch.unflatten(out, 0, (-1, steps))

    def _enter(self, joint: Joint) -> Tensor:
        if self.sides is None:
            return joint
        states, contents = self.sizes
        if self.has_map:
            return torch.unflatten(joint, 1, (states + contents, *self.sides))
        z, w = torch.split(joint, [states * math.prod(self.sides), contents], dim=1)
        w = w[:, :, None, None].expand(-1, -1, *self.sides)
        return torch.cat([torch.unflatten(z, 1, (states, *self.sides)), w], dim=1)

    def _leave(self, out: Tensor) -> Joint:
        if self.sides is None:
            return out
        if self.has_map:
            return out.flatten(1)
        z, w = torch.split(out, list(self.sizes), dim=1)
        return torch.cat([z.flatten(1), w.mean((2, 3))], dim=1)


class Birth(nn.Module):
    """p(w, z_0 | c, e): the end of a Follmer process from 0, conditioned on context and text.

    With `encoder.causal` a path that goes on after an observed frame is not born: it starts from a
    Gaussian p(w, z_0 | c), the only uncertainty left.

    The chain runs in units of a learnt mean and scale of each channel: they are part of the
    density, so that ranks, EMA and checkpoints hold them as any other weights.
    """

    def __init__(self, config: Config, sides: Sides) -> None:
        super().__init__()
        self.settings, self.sides = config.birth, sides
        self.content_sides = sides if config.sde.content == "map" else None
        self.state_size, self.content_size = config.sde.state_size, config.sde.content_size
        self.endpoint = EndpointNetwork(config, sides)
        self.after = PriorStart(config, sides) if config.encoder.causal else None
        self.mean = nn.Parameter(torch.zeros(self.state_size + self.content_size))
        self.log_scale = nn.Parameter(torch.zeros(self.state_size + self.content_size))

    @property
    def size(self) -> int:
        """Components of the joint that is born: those of z_0 and of w."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        cells, places = (math.prod(sides or ()) for sides in (self.sides, self.content_sides))
        return [self.state_size * cells, self.content_size * places]

    def negative_log_prob(
        self,
        w: Float[Tensor, "batch content *cells"],
        z: Float[Tensor, "batch *latent"],
        history: History,
        noise: Float[Tensor, "batch steps size"],
        draws: Float[Tensor, "batch steps"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Bound -log p(w, z_0 | c, e) from above, in nats.

        `noise` is standard normal, one draw a step. With uniform `draws` as many steps are drawn,
        which makes it an unbiased estimate; without, all steps are taken.
        """
        grid = self.schedule(w.device)
        drawn = None if draws is None else birth.draw_steps(grid, draws)
        y, level = self._standardised(w, z)
        return birth.bound(y, self._predict(history), grid, noise, drawn) + level

    def log_ratio(
        self,
        w: Float[Tensor, "batch content *cells"],
        z: Float[Tensor, "batch *latent"],
        history: History,
        noise: Float[Tensor, "batch steps size"],
    ) -> Float[Tensor, " batch"]:
        """Draw an unbiased importance weight of p(w, z_0 | c, e), in log: `sde.birth.log_ratio`."""
        y, level = self._standardised(w, z)
        return birth.log_ratio(y, self._predict(history), self.schedule(w.device), noise) - level

    def draw(
        self, history: History, noise: Float[Tensor, "batch steps size"], guidance: Guidance
    ) -> SampledStart:
        """Walk the chain with standard normal `noise`, one draw a step, to (w, z_0)."""
        born = birth.sample(
            self._predict(history),
            self.schedule(noise.device),
            noise,
            away=None if guidance.away is None else self._predict(guidance.away),
            guidance_scale=guidance.scale,
            temperature=guidance.temperature,
        )
        y = self._wide(self.mean) + self._wide(self.log_scale).exp() * born.y
        z, w = torch.split(y, self._sizes, dim=1)
        if self.sides is not None:
            z = torch.unflatten(z, 1, (self.state_size, *self.sides))
        if self.content_sides is not None:
            w = torch.unflatten(w, 1, (self.content_size, *self.content_sides))
        return SampledStart(w, z, born.nats)

    def continued(self, history: History) -> tuple[Gaussian, Gaussian]:
        """Compute p(w | c) and p(z_0 | c), from which a path continues after an observed frame."""
        assert self.after is not None
        return self.after.continued(history)

    def divergence(
        self, draw: StartDraw, history: History, seed: int, serial: Serial
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Bound KL(q(w, z_0) || p) in nats, by name.

        In training the bound is estimated from a few randomly drawn steps. Where the path continues
        after an observed frame, the divergence is that of a Gaussian start.
        """
        steps, draws = self.settings.steps, None
        if self.training:
            steps = self.settings.drawn
            draws = uniform(seed, serial, Stream.BIRTH_STEP, (steps,))
        noise = normal(seed, serial, Stream.BIRTH, (steps, self.size))
        cost = self.negative_log_prob(draw.w, draw.z, history, noise, draws)
        known = negative_entropy(draw.state.scale) + negative_entropy(draw.content.scale)
        if self.after is None or history.continued is None:
            return {"kl_birth": cost + known}
        after = self.after.divergence(draw, history, seed, serial)
        after = {name: value * history.continued for name, value in after.items()}
        return after | {"kl_birth": (cost + known) * ~history.continued}

    def log_prob(
        self, draw: StartDraw, history: History, seed: int, serial: Serial
    ) -> Float[Tensor, " batch"]:
        """Estimate log p(w, z_0 | c, e) by the log of one path's unbiased importance weight."""
        noise = normal(seed, serial, Stream.BIRTH, (self.settings.steps, self.size))
        born = self.log_ratio(draw.w, draw.z, history, noise)
        if self.after is None or history.continued is None:
            return born
        after = self.after.log_prob(draw, history, seed, serial)
        return torch.where(history.continued, after, born)

    def sample(
        self, history: History, seed: int, serial: Serial, guidance: Guidance
    ) -> SampledStart:
        """Draw (w, z_0) for the clip of each serial, and what guidance spent on it."""
        noise = normal(seed, serial, Stream.BIRTH, (self.settings.steps, self.size))
        born = self.draw(history, noise, guidance)
        if self.after is None or history.continued is None:
            return born
        after = self.after.sample(history, seed, serial, guidance)
        return SampledStart(
            *(
                torch.where(history.continued.view(-1, *[1] * (a.dim() - 1)), a, b)
                for a, b in zip(after, born, strict=True)
            )
        )

    def schedule(self, device: torch.device) -> Schedule:
        """Build the chain's grid from the settings."""
        return _schedule(self.settings.steps, self.settings.last, device)

    def _predict(self, history: History) -> Predict:
        conditions = self.endpoint.conditions(history)

        def predict(x: Tensor, left: Tensor) -> Tensor:
            out: Tensor = self.endpoint(x, left, conditions)
            return out

        return predict

    def _standardised(self, w: Tensor, z: Tensor) -> tuple[Joint, Float[Tensor, ""]]:
        """Standardise (z_0, w) to the chain's units; also sum the logs of those units."""
        joint = torch.cat([z.flatten(1), w.flatten(1)], dim=1)
        level = self._wide(self.log_scale)
        return (joint - self._wide(self.mean)) * (-level).exp(), level.sum()

    def _wide(self, values: Float[Tensor, " channels"]) -> Float[Tensor, " size"]:
        """Lay out one value a channel of z_0 or component of w as the joint is."""
        parts = torch.split(values, [self.state_size, self.content_size])
        wide = (p.repeat_interleave(n // len(p)) for p, n in zip(parts, self._sizes, strict=True))
        return torch.cat(list(wide))


# Without the cache each step of training copies to the device, and waits.
_schedule = cache(birth.schedule)


def negative_entropy(scale: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Compute E log q of a diagonal Gaussian of this scale, in nats."""
    return -(scale.log() + 0.5 * math.log(2 * math.pi * math.e)).flatten(1).sum(1)


def build_start(config: Config, sides: Sides) -> Birth | PriorStart:
    """Build the start that `sde.start` names."""
    return Birth(config, sides) if config.sde.start == "birth" else PriorStart(config, sides)
