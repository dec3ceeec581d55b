"""The latent SDE of particles: read from a frame, moved by a law in pixels, drawn by splatting."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.particles import poses
from sdevid.models.particles.decoder import ParticleDecoder
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.patches import PatchDecoder
from sdevid.models.particles.path import solve_path
from sdevid.models.particles.posterior import (
    Features,
    NeighbourFeatures,
    Observation,
    ParticleControl,
)
from sdevid.models.particles.reader import ParticleReader, with_ring
from sdevid.models.particles.ring import Outside, Ring
from sdevid.models.particles.state import Content, ParticleState, layout_of
from sdevid.models.particles.thing_control import NextFrames, ThingControl
from sdevid.models.particles.thing_reader import ThingReader
from sdevid.models.sampling import (
    Chunk,
    Conditioning,
    SamplerConfig,
    points_from_start,
    sent,
)
from sdevid.models.solver_grid import solver_grid
from sdevid.models.video_model import VideoModel
from sdevid.sde.noise import Stream, normal
from sdevid.transfer import to_device
from sdevid.types import Frames, Serial, Ticks, units


class ParticleSDE(VideoModel):
    """K particles with places in pixels; `sde/carried_noise` describes their noise."""

    prior_parts: tuple[str, ...] = (
        "law.log_diffusion",
        "law.log_length",
        "law.by_place",
        "law.walls",
        "decoder.log_radius",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.layout = layout_of(config)
        self.paints_patches = config.particles.patch > 0
        if self.paints_patches:
            told = ("reader.prior_mean", "reader.prior_log_scale", "reader.text", "text")
            self.prior_parts = ("law", *told)
        with self.named("reader"):
            self.reader: ParticleReader | ThingReader = (
                ThingReader(config) if self.paints_patches else ParticleReader(config)
            )
        with self.named("law"):
            self.law = ParticleLaw(config)
        with self.named("features"):
            self.features: NeighbourFeatures | NextFrames = (
                NextFrames() if self.paints_patches else NeighbourFeatures(config)
            )
        with self.named("control"):
            self.control: ParticleControl | ThingControl = (
                ThingControl(config) if self.paints_patches else ParticleControl(config)
            )
        with self.named("decoder"):
            self.decoder: ParticleDecoder | PatchDecoder = (
                PatchDecoder(config) if self.paints_patches else ParticleDecoder(config)
            )
        self.ring = None
        if config.particles.ring:
            with self.named("ring"):
                self.ring = Ring(config)
        self.text = self.build_text()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Particles and what noise moves of each."""
        outside = 0 if self.ring is None else self.ring.size
        return (self.config.particles.count + outside, self.layout.noises)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Particles and what each is born with where no frame is observed."""
        return (self.config.particles.count, self.reader.prior_log_scale.numel())

    def notes(self) -> tuple[str, ...]:
        """Say where what is generated follows another law than was trained."""
        factor, group = float((2 * self.law.calibration).exp()), self.law.group
        notes = []
        if factor != 1:
            notes.append(f"the diffusion was calibrated after training: g^2 x {factor:.3f}")
        if group:
            notes.append(f"particles that draw one thing, within {group:g} pixels, move as one")
        return tuple(notes)

    def _chunks(
        self,
        ticks: Ticks,
        sampler: SamplerConfig,
        conditioning: Conditioning,
        size: int,
    ) -> Iterator[Chunk]:
        """Generate the chunks; UserError for a solver or guidance that takes no shared noise."""
        self._check(sampler)
        points = points_from_start(ticks, conditioning.frame_ticks)
        if conditioning.frame_ticks is not None:
            _check_start(points, conditioning.frame_ticks.cpu())
        ticks, conditioning = sent(ticks, conditioning, next(self.parameters()).device)
        serial = sampler.serials(ticks)
        text = self.embedding(conditioning.text, len(ticks))
        z, content = self._start(ticks, sampler, conditioning, text)
        ring = self.outside(sampler.seed, serial, None)
        if ring is not None:
            z, content = with_ring(self.layout, z, content, ring)
        conditions = self.law.conditions(content, text, grouped=True)
        noise = self.brownian(sampler.seed, serial)
        returned = None if self.ring is None else self.ring.returned
        for first in range(0, ticks.shape[1], size):
            part = points[:, first : first + size + 1]
            grid, saved = solver_grid(part, self.cell, sampler.steps_per_frame)
            dw = sampler.temperature * noise.increments(grid)
            dt = to_device(self.steps(grid), dw.device).to(dw.dtype)
            path = solve_path(self.law, z, conditions, dt, dw, saved[1:], returned=returned)
            states = path.states
            z = states[:, -1]
            yield Chunk(self.decoder(states, content), z.new_zeros(len(z)))

    def outside(self, seed: int, serial: Serial, features: Features | None) -> Outside | None:
        """Draw the ring's particles, or None without a ring.

        With `features` they are the posterior's, else the prior's.
        """
        if self.ring is None:
            return None
        ring: Outside = self.ring(normal(seed, serial, Stream.RING, (self.ring.size, 3)), features)
        return ring

    def observe(
        self,
        features: Float[Tensor, "batch features rows columns"],
        z: ParticleState,
        content: Content,
        left: Float[Tensor, "batch 2"],
    ) -> Observation:
        """Read the posterior's pseudo-observations of each particle before a step."""
        patches = None
        if isinstance(self.decoder, PatchDecoder) and self.config.particles.sought == "patch":
            patches = self.decoder.shown(z[:, None], content)[:, 0]
        seen: Observation = self.control(features, z, content, left, patches)
        return seen

    def posed(
        self,
        z: ParticleState,
        content: Content,
        frames: Frames,
        sign: Float[Tensor, "batch 1 1"],
    ) -> ParticleState:
        """Read the poses of a start off the frames that it was read from, where there are any.

        The last of `frames` is the path's first; `sign` is -1 where they run back in time.
        """
        if not self.layout.has_pose:
            return z
        assert isinstance(self.reader, ThingReader)
        assert isinstance(self.decoder, PatchDecoder)
        seen, places = self.reader.middled(frames)
        pose = poses.read(self.decoder, self.law.stride(), content, seen, places, sign)
        return torch.cat([z[..., :-1], pose], dim=-1)

    def steps(self, grid: Int64[Tensor, "batch points"]) -> Float[Tensor, "batch steps"]:
        """Compute the lengths of the steps between grid points, in training frames."""
        return units(grid.diff(dim=1))

    def _check(self, sampler: SamplerConfig) -> None:
        if sampler.solver not in (None, "euler_maruyama"):
            raise UserError(
                f"solver is {sampler.solver}, but sde.latent is particles, whose noise is shared "
                "over particles, and that solver takes diagonal noise; use euler_maruyama"
            )
        if sampler.tolerance is not None:
            raise UserError(
                f"tolerance is {sampler.tolerance:g}, but sde.latent is particles, and no adaptive "
                "solver takes noise that particles share; leave adaptive steps out"
            )
        if sampler.guidance_scale != 1:
            raise UserError(
                f"guidance_scale is {sampler.guidance_scale:g}, but guidance is not defined for "
                "sde.latent particles; set it to 1"
            )

    def _start(
        self, ticks: Ticks, sampler: SamplerConfig, conditioning: Conditioning, text: Tensor | None
    ) -> tuple[ParticleState, Content]:
        """Draw or read the state and the content."""
        first = ticks[:, :1]
        if conditioning.frames is None or conditioning.frame_ticks is None:
            eps = normal(sampler.seed, sampler.serials(ticks), Stream.INITIAL, self.code_shape)
            config = self.config
            frame = self.reader.level.new_zeros(
                len(ticks), config.channels, config.frame_size, config.frame_size
            )
            z, content = self.reader.free(eps, text, frame)
            return self._posed_anyhow(z, sampler, sampler.serials(ticks)), content
        times = conditioning.frame_ticks
        before = (times <= first).sum(1)
        rows = torch.arange(len(times), device=times.device)
        last = before - 1
        seen = [(last - back).clamp(min=0) for back in reversed(range(self.reader.memory))]
        frames = torch.stack([conditioning.frames[rows, at] for at in seen], dim=1)
        z, content = self.reader.observed(frames)
        return self.posed(z, content, frames, z.new_ones(len(z), 1, 1)), content

    def _posed_anyhow(
        self, z: ParticleState, sampler: SamplerConfig, serial: Serial
    ) -> ParticleState:
        """Draw the poses of a start, where things have any."""
        if not self.layout.has_pose:
            return z
        count = self.config.particles.poses
        return torch.cat([z[..., :-1], poses.drawn(sampler.seed, serial, z.shape[1], count)], -1)


def _check_start(
    points: Int64[Tensor, "batch points"], times: Int64[Tensor, "batch observed"]
) -> None:
    """Raise UserError where no frame is observed early enough; both lie on the host."""
    if not bool((times <= points[:, 1:2]).any(1).all()):
        raise UserError(
            "no observed frame lies at or before the first frame to generate, but "
            "sde.latent particles begin at an observed frame; observe an earlier one"
        )
