"""Particles and ground read from observed frames, and their birth where none is observed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sdevid.config import Config
from sdevid.models.gaussian import Gaussian, kl
from sdevid.models.particles.ring import Outside
from sdevid.models.particles.state import (
    Content,
    Layout,
    ParticleState,
    centred,
    conv,
    layout_of,
    median,
    scaled,
)
from sdevid.types import Frames

STEEP = 3.0  # presence = sigmoid(STEEP * code)
FREE_SCALE = 0.1  # of the posterior's code before training, where no frame is observed

Code = Float[Tensor, "batch particles code"]  # place, velocity, presence, appearance


class ParticleBirth(NamedTuple):
    """Start of a film of particles: their state, content and the divergence spent on it."""

    state: ParticleState
    content: Content
    kl: Float[Tensor, " batch"]  # nats; 0 where the first frame is observed
    unexplained: Float[Tensor, " batch"] | None = None  # of the frame that things are peeled off
    untold: Float[Tensor, " batch"] | None = None  # nats by which the text misses the code read


def with_ring(
    layout: Layout, state: Tensor, content: Content, ring: Outside
) -> tuple[Tensor, Content]:
    """Join the particles read inside the picture and those born around it, at rest."""
    still = torch.zeros_like(ring.positions) if layout.order == 2 else None
    depth = torch.zeros_like(ring.logit) if layout.has_depth else None
    outside = layout.join(ring.positions, still, depth)
    joined = Content(
        torch.cat([content.logit, ring.logit], dim=1),
        torch.cat([content.look, ring.look], dim=1),
        torch.cat([content.born, ring.positions], dim=1),
        content.ground,
    )
    return torch.cat([state, outside], dim=1), joined


class Birth(nn.Module):
    """Prior and posterior of a code where no frame is observed, and the level of a bare ground."""

    level: Tensor  # of the ground, by channel
    text: nn.Module | None

    def _add_birth(self, channels: int, count: int, size: int) -> None:
        """Register the weights: a code of `size` for each of `count` things."""
        self.level = nn.Parameter(torch.full((channels,), 0.5))
        self.prior_mean = nn.Parameter(torch.zeros(count, size))
        self.prior_log_scale = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.full((size,), math.log(FREE_SCALE)))
        self.text = None

    def _drawn(
        self,
        code: Code,
        is_free: Bool[Tensor, " batch"],
        eps: Code,
        text: Float[Tensor, "batch features"] | None,
    ) -> tuple[Code, Float[Tensor, " batch"]]:
        """Draw the posterior around a free clip's reading; return the code and its divergence."""
        prior = self._prior(len(code), text)
        posterior = Gaussian(code, self.log_scale.exp().expand_as(code))
        spent = torch.where(is_free, kl(posterior, prior), 0.0)
        return torch.where(is_free[:, None, None], posterior.at(eps), code), spent

    def _untold(self, code: Code, text: Tensor | None) -> Float[Tensor, " batch"] | None:
        """Compute how far the prior that the text tells is from any clip's code; it alone learns.

        So the text is learnt from observed clips too, whose start costs nothing.
        """
        if self.text is None or text is None:
            return None
        read = Gaussian(code.detach(), self.log_scale.detach().exp().expand_as(code))
        return kl(read, self._prior(len(code), text))

    def free(
        self, eps: Code, text: Float[Tensor, "batch features"] | None, frame: Tensor
    ) -> tuple[ParticleState, Content]:
        """Draw the prior's start without an observed frame; `frame` gives the shape of one."""
        return self._born(self._prior(len(eps), text).at(eps), self._bare(frame))

    def _bare(self, like: Tensor) -> Tensor:
        return self.level[:, None, None].expand_as(like)

    def _prior(self, batch: int, text: Tensor | None) -> Gaussian:
        mean = self.prior_mean.expand(batch, -1, -1)
        if self.text is not None and text is not None:
            mean = mean + self.text(text)[:, None]
        return Gaussian(mean, self.prior_log_scale.exp().expand_as(mean))

    def _born(self, code: Code, ground: Tensor) -> tuple[ParticleState, Content]:
        """Turn a code into the state and the content that it stands for."""
        raise NotImplementedError


class ParticleReader(Birth):
    """p(w, z_0 | c) and q(w, z_0 | x): one particle a cell of the picture.

    Where the frame at which the path begins is observed, both are the same function of it (and,
    for a state of second order, of the two frames before), and cost nothing. Where none is, the
    posterior is a Gaussian around that reading and the prior one of its own for each cell.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        settings, self.layout = config.particles, layout_of(config)
        self.memory = 1 if self.layout.order == 1 else 3  # frames read
        self.side, self.pixels = settings.side, config.frame_size / settings.side
        channels, size = config.channels, self._code_size(settings.appearance)
        stride = config.frame_size // (4 * settings.side)
        self.cells = nn.Sequential(
            conv(channels * self.memory, 16, 5, 2),
            nn.SiLU(),
            conv(16, 32, 3, 2),
            nn.SiLU(),
            conv(32, 32),
            nn.SiLU(),
            conv(32, 48, 3, stride),
            nn.SiLU(),
            conv(48, 48),
            nn.SiLU(),
            scaled(conv(48, size), 0.3),
        )
        self.ground = Ground(channels)
        self._add_birth(channels, settings.count, size)
        if config.text.encoder != "none":
            self.text = scaled(nn.Linear(config.encoder.features, size), 0.0)

    @property
    def home(self) -> Float[Tensor, "particles 2"]:
        """The middle of each particle's cell, in pixels, row by row."""
        at = (torch.arange(self.side, device=self.level.device) + 0.5) * self.pixels - 0.5
        return torch.cartesian_prod(at, at).flip(-1)

    def _code_size(self, appearance: int) -> int:
        return 2 * self.layout.order + 1 + appearance

    def forward(
        self,
        frames: Frames,
        is_free: Bool[Tensor, " batch"],
        eps: Code,
        text: Float[Tensor, "batch features"] | None,
        detail: float | Tensor = 1.0,
    ) -> ParticleBirth:
        """Read the posterior's start from the last `memory` of `frames`, drawn by `eps` if free.

        `detail` weights the ground's fine part.
        """
        level = median(frames[:, -1])
        code = self._read(frames, level)
        drawn, spent = self._drawn(code, is_free, eps, text)
        ground = self.ground(centred(frames[:, -1], level), detail) + level
        ground = torch.where(is_free[:, None, None, None], self._bare(ground), ground)
        return ParticleBirth(*self._born(drawn, ground), spent)

    def observed(self, frames: Frames) -> tuple[ParticleState, Content]:
        """Read the prior's start from observed `frames`; the path begins at the last one."""
        level = median(frames[:, -1])
        code = self._read(frames, level)
        return self._born(code, self.ground(centred(frames[:, -1], level)) + level)

    def _read(self, frames: Frames, level: Tensor) -> Code:
        first = frames[:, :1].expand(-1, max(0, self.memory - frames.shape[1]), -1, -1, -1)
        seen = centred(torch.cat([first, frames[:, -self.memory :]], dim=1), level[:, None])
        code: Tensor = self.cells(seen.flatten(1, 2)).flatten(2).transpose(1, 2)
        return code.float()

    def _born(self, code: Code, ground: Tensor) -> tuple[ParticleState, Content]:
        """Turn the code into particles, within three quarters of a cell of home along each axis."""
        layout: Layout = self.layout
        place = self.home + 0.75 * self.pixels * code[..., :2].tanh()
        velocity = 4 * code[..., 2:4] if layout.order == 2 else None
        logit = STEEP * code[..., 2 * layout.order : 2 * layout.order + 1]
        look = code[..., 2 * layout.order + 1 :]
        depth = torch.zeros_like(logit) if layout.has_depth else None
        return layout.join(place, velocity, depth), Content(logit, look, place, ground)


class Ground(nn.Module):
    """Static ground, read from one frame: a coarse part and one at full size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.AvgPool2d(8), conv(channels, 8), nn.SiLU(), scaled(conv(8, channels), 0.0)
        )
        wide = [layer for gap in (1, 2, 4, 1) for layer in (conv(16, 16, gap=gap), nn.SiLU())]
        self.fine = nn.Sequential(
            conv(channels, 16, 5, 2),
            nn.SiLU(),
            *wide,
            scaled(conv(16, 4 * channels), 0.0),
            nn.PixelShuffle(2),
        )

    def forward(
        self, frame: Float[Tensor, "batch channels height width"], detail: float | Tensor = 1.0
    ) -> Tensor:
        """Read the ground from `frame`, in float32; `detail` weights the fine part."""
        broad = functional.interpolate(
            self.coarse(frame), size=frame.shape[-2:], mode="bilinear", align_corners=False
        )
        ground: Tensor = (broad + detail * self.fine(frame)).float()
        return ground
