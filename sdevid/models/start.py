"""Where a path begins: the static content code and the first state, prior and posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models.encoder import Sides, lay_out
from sdevid.models.gaussian import Gaussian, GaussianHead, Mixture, kl, kl_to_mixture
from sdevid.models.temporal import History
from sdevid.models.transport import AXES
from sdevid.sde.noise import Stream, normal, uniform
from sdevid.types import Serial

_STILL = 0.02  # pixels, sd of the displacement at the last observed frame, where there is none
_VELOCITY = 0.3  # pixels a training frame, what is learnt of a velocity beside the motion observed
Summary = Float[Tensor, "batch cells features"]


class StartDraw(NamedTuple):
    """A draw of (w, z_0) from the posterior; `eps` is the noise that made z_0."""

    content: Gaussian  # q(w | x)
    state: Gaussian  # q(z_0 | x)
    w: Float[Tensor, "batch content *cells"]
    z: Float[Tensor, "batch *latent"]
    eps: Float[Tensor, "batch *latent"]


class SampledStart(NamedTuple):
    """Start of a generated path, and the nats that guidance spent on it."""

    w: Float[Tensor, "batch content *cells"]
    z: Float[Tensor, "batch *latent"]
    nats: Float[Tensor, " batch"]


class Guidance(NamedTuple):
    """Guidance of a start, away from the start under another text."""

    away: History | None = None
    scale: float = 1.0
    temperature: float = 1.0  # scales the noise of a birth; a Gaussian start keeps its own


class ContentHead(GaussianHead):
    """A Gaussian over the content w from one token a cell: a code of their mean, or a map."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.encoder.features, config.sde.content_size)
        self.sides = config.map_shape if config.sde.content == "map" else None

    def forward(self, features: Summary) -> Gaussian:
        """Compute the content's Gaussian: of the cells' mean token, or of each cell of a map."""
        if self.sides is None:
            return super().forward(features.mean(1))
        cells = super().forward(features)
        return Gaussian(lay_out(cells.mean, self.sides), lay_out(cells.scale, self.sides))


def _moving(
    parts: Gaussian, first: int, motion: Float[Tensor, "batch 2 rows columns"] | None, pixel: float
) -> Gaussian:
    """Begin without displacement, and with a velocity near the observed motion.

    `parts` are (batch, components, channels, rows, columns); velocities begin at channel `first`
    and are in units of which a pixel has `pixel`.
    """
    velocity, learnt = slice(first, first + AXES), _VELOCITY * pixel
    mean, scale = parts.mean.clone(), parts.scale.clone()
    mean[:, :, :AXES], scale[:, :, :AXES] = 0.0, _STILL * pixel
    mean[:, :, velocity] = learnt * parts.mean[:, :, velocity]
    scale[:, :, velocity] = learnt * parts.scale[:, :, velocity]
    if motion is not None:
        mean[:, :, velocity] = mean[:, :, velocity] + motion[:, None]
    return Gaussian(mean, scale)


class PosteriorStart(nn.Module):
    """q(w | x) and q(z_0 | x) from the token of the frame at which the path begins."""

    def __init__(self, config: Config, sides: Sides) -> None:
        super().__init__()
        self.sides = sides
        self.content = ContentHead(config)
        self.state = GaussianHead(config.encoder.features, config.sde.state_size)

    def forward(self, token: Summary) -> tuple[Gaussian, Gaussian]:
        """Compute q(w | x) and q(z_0 | x) from that token (batch, cells, features)."""
        state = self.state(token)
        laid = Gaussian(lay_out(state.mean, self.sides), lay_out(state.scale, self.sides))
        return self.content(token), laid


class PriorStart(nn.Module):
    """p(w | c), a Gaussian, and p(z_0 | c), a mixture, from the history's summary.

    A state that may begin in several ways, such as a disc in one of two wells, needs components; a
    single Gaussian would put its mass between them.
    """

    def __init__(self, config: Config, sides: Sides) -> None:
        super().__init__()
        self.sides, self.components = sides, config.sde.start_components
        features, size = config.encoder.features, config.sde.state_size
        self.content = ContentHead(config)
        self.state = GaussianHead(features, self.components * size)
        self.velocity = config.sde.latent_size if config.encoder.transport else None
        self.pixel = min(config.map_shape) / min(config.picture[1:])  # cells
        self.weights = None
        if self.components > 1:
            nn.init.normal_(self.state.linear.bias[: self.components * size])
            self.weights = nn.Linear(features, self.components)
            nn.init.zeros_(self.weights.weight)
            nn.init.zeros_(self.weights.bias)

    def continued(self, history: History) -> tuple[Gaussian, Gaussian]:
        """Compute p(w | c) and p(z_0 | c), from which a path continues after an observed frame.

        Both are Gaussian: the mixture has one component.
        """
        content, state = self(history)
        return content, Gaussian(state.parts.mean[:, 0], state.parts.scale[:, 0])

    def divergence(
        self, draw: StartDraw, history: History, seed: int, serial: Serial
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Compute KL(q || p) of w and of z_0 in nats, by name."""
        del seed, serial  # a Gaussian's is exact
        content, state = self(history)
        return {
            "kl_initial": kl_to_mixture(draw.state, state, draw.z, draw.eps),
            "kl_content": kl(draw.content, content),
        }

    def log_prob(
        self, draw: StartDraw, history: History, seed: int, serial: Serial
    ) -> Float[Tensor, " batch"]:
        """Compute log p(w, z_0 | c) in nats."""
        del seed, serial
        content, state = self(history)
        apart = ((draw.w - content.mean) / content.scale).square()
        each = -0.5 * apart - content.scale.log() - 0.5 * math.log(2 * math.pi)
        both: Tensor = each.flatten(1).sum(1) + state.log_prob(draw.z)
        return both

    def sample(
        self, history: History, seed: int, serial: Serial, guidance: Guidance
    ) -> SampledStart:
        """Draw (w, z_0). Guidance does not act on a Gaussian start, only along the path."""
        del guidance
        content, state = self(history)
        w = content.at(normal(seed, serial, Stream.CONTENT, content.mean.shape[1:]))
        choice = uniform(seed, serial, Stream.COMPONENT, (1,))
        eps = normal(seed, serial, Stream.INITIAL, state.parts.mean.shape[2:])
        return SampledStart(w, state.at(choice, eps), w.new_zeros(len(w)))

    def forward(self, history: History) -> tuple[Gaussian, Mixture]:
        """Compute p(w | c) and p(z_0 | c) from the history's summary."""
        summary = history.summary
        parts = Gaussian(*(self._components(part) for part in self.state(summary)))
        last = history.last
        if self.velocity is not None:
            moving = None if last is None else last.moving
            parts = _moving(parts, self.velocity, None if moving is None else moving.motion, 1.0)
        elif last is not None and last.velocity is not None:
            is_seen = last.maps[0][:, -1, 0, 0].bool().view(-1, 1, 1, 1, 1)
            moved = _moving(parts, parts.mean.shape[2] // 2, last.velocity, self.pixel)
            parts = Gaussian(
                *(torch.where(is_seen, *both) for both in zip(moved, parts, strict=True))
            )
        content = self.content(summary)
        if self.weights is None:
            return content, Mixture(summary.new_zeros(len(summary), 1).float(), parts)
        return content, Mixture(self.weights(summary.mean(1)).float(), parts)

    def _components(self, part: Float[Tensor, "batch cells all"]) -> Tensor:
        """Lay out a head's output as (batch, components, *latent)."""
        split = torch.unflatten(part, -1, (self.components, -1)).transpose(1, 2)
        return lay_out(split, self.sides)
