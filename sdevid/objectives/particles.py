"""The evidence lower bound of a latent of particles, by simulating the posterior's chain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.particles import poses
from sdevid.models.particles.law import ParticleConditions
from sdevid.models.particles.model import ParticleSDE
from sdevid.models.particles.path import ParticlePath, solve_path
from sdevid.models.particles.posterior import Features, Observation
from sdevid.models.particles.reader import ParticleBirth, with_ring
from sdevid.models.particles.state import ParticleState
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives.clip_objective import ClipObjective, Clips, PerClip, divergence
from sdevid.objectives.window import Window
from sdevid.sde.noise import Stream, normal
from sdevid.types import Frames, Serial, as_frames, present_frames

PRESENT = 0.1  # presence from which a particle's steps count in their correlation


class PosteriorDraw(NamedTuple):
    """One draw from the posterior of a batch of clips."""

    birth: ParticleBirth
    conditions: ParticleConditions
    path: ParticlePath  # at the window's frames
    window: Window
    intervals: Float[Tensor, "batch intervals"]  # training frames between the window's frames


class ParticleObjective(ClipObjective):
    """The bound, less a penalty on presence and one on correlated steps.

    The penalties and the ground's detail are phased in between two shares of the run: from the
    first step they would leave no particle, before one is of use.
    """

    model: ParticleSDE

    def clip_terms(self, clips: Clips) -> PerClip:
        """Compute each clip's terms in nats, `elbo`, and what the penalties need."""
        model = self.model
        draw = self.posterior(clips)
        window, birth, path = draw.window, draw.birth, draw.path
        decoded = model.decoder(path.states, birth.content)
        presence = model.decoder.presence(path.states, birth.content)
        log_prob = model.likelihood.log_prob(decoded, window.cut(as_frames(clips.video)))
        terms = {
            "reconstruction": (log_prob * self._drawn(window)).sum(1),
            "kl_path": path.kl * self._moves(),
            "kl_initial": birth.kl,
            "control_energy": path.energy,
            "presence": self._presence(presence, window),
        }
        terms |= self._successive(path.states, birth, draw.intervals)
        if birth.unexplained is not None:
            pixels = decoded[0, 0].numel() / (2 * self.config.observation.scale**2)
            terms["unexplained"] = pixels * birth.unexplained  # nats
        if birth.untold is not None:
            terms["untold"] = birth.untold
        if model.law.walls is not None:
            places = model.layout.split(path.states)[0]
            terms["beyond_walls"] = model.law.walls.misfit(places, presence)
        terms["elbo"] = terms["reconstruction"] - divergence(terms)
        return terms | {"diffusion": draw.conditions.diffusion.detach()}

    def posterior(self, clips: Clips) -> PosteriorDraw:
        """Draw particles, their content and their path through each clip's window."""
        video, ticks, serial, context, text = clips
        model, config, frames = self.model, self.config, as_frames(video)
        observed = self.observed(serial, frames.shape[1], context) & present_frames(frames)
        window = Window.after(observed)
        embedding = model.embedding(text, len(frames))
        birth, features = self._birth(frames, observed, window, serial, embedding)
        conditions = model.law.conditions(birth.content, embedding)
        conditions = conditions._replace(diffusion=self._learnt(conditions.diffusion))
        per = config.sde.steps_per_frame
        grid, saved = solver_grid(window.cut(ticks), model.cell, per)
        noise = model.brownian(config.seed, serial).increments(grid)
        dt = model.steps(grid).to(noise)

        def observe(z: ParticleState, k: int) -> Observation:
            interval, step = divmod(k, per)
            left = torch.full_like(dt[:, k], 1 / (per - step))
            ahead = torch.stack([left, dt[:, k]], dim=-1)
            return model.observe(features[:, interval], z, birth.content, ahead)

        path = solve_path(model.law, birth.state, conditions, dt, noise, saved, observe)
        intervals = torch.unflatten(dt, 1, (-1, per)).sum(2)
        return PosteriorDraw(birth, conditions, path, window, intervals)

    def loss(self, means: dict[str, Tensor], kl_weight: float | Tensor) -> Float[Tensor, ""]:
        """Add the penalties to the negative bound, and name the correlation of the steps."""
        settings = self.config.particles
        squares = means.pop("step_square").clamp(min=1e-12)
        means["step_correlation"] = means.pop("step_product") / squares
        penalty = settings.presence_penalty * means["presence"]
        penalty = penalty + settings.whiteness * means["step_correlation"].square()
        reading = means.get("unexplained", 0.0)  # each of these trains weights of its own alone
        reading = reading + means.get("untold", 0.0) + means.get("beyond_walls", 0.0)
        return super().loss(means, kl_weight) + self._ramp() * penalty + reading

    def _learnt(self, diffusion: Tensor) -> Tensor:
        """Return g, of no gradient in the first `particles.diffusion_from` of the run.

        Until the posterior follows what it sees, g would fall to nothing: what stands still blurs
        least, and what has no noise can no longer be moved.
        """
        is_learnt = (self.progress >= self.config.particles.diffusion_from).float()
        fixed = diffusion.detach()
        return fixed + is_learnt * (diffusion - fixed)

    def _moves(self) -> Float[Tensor, ""]:
        """Return 0 while single frames are learnt, `particles.still` of the run, then 1."""
        return (self.progress >= self.config.particles.still).float()

    def _drawn(self, window: Window) -> Float[Tensor, "batch time"]:
        """Weigh the window's frames: all valid ones, or the first one alone while it is still."""
        first = torch.zeros_like(window.valid)
        first[:, 0] = True
        return (window.valid & (first | (self._moves() > 0))).float()

    def _ramp(self) -> Float[Tensor, ""]:
        first, last = self.config.particles.ramp
        return ((self.progress - first) / (last - first)).clamp(0, 1)

    def _birth(
        self,
        frames: Frames,
        observed: Tensor,
        window: Window,
        serial: Serial,
        embedding: Tensor | None,
    ) -> tuple[ParticleBirth, Features]:
        """Read where each clip's path begins, and the posterior's features of its window."""
        model, reference = self.model, window.reference
        rows = torch.arange(len(frames), device=frames.device)[:, None]
        back = torch.arange(model.reader.memory - 1, -1, -1, device=frames.device)
        eps = normal(self.config.seed, serial, Stream.INITIAL, model.code_shape)
        is_free = ~observed.gather(1, reference)[:, 0]
        ahead = is_free[:, None] & model.paints_patches
        at = (reference + torch.where(ahead, back, -back)).clamp(0, frames.shape[1] - 1)
        read_from = frames[rows, at]
        birth: ParticleBirth = model.reader(read_from, is_free, eps, embedding, self._ramp())
        if model.layout.has_pose:
            sign = torch.where(is_free, -1.0, 1.0)[:, None, None]
            state = model.posed(birth.state, birth.content, read_from, sign)
            named = birth.content.look.shape[1] * poses.cost(self.config.particles.poses)
            birth = birth._replace(state=state, kl=birth.kl + named * is_free)
        features: Features = model.features(window.cut(frames))
        ring = model.outside(self.config.seed, serial, features)
        if ring is not None:
            joined = with_ring(model.layout, birth.state, birth.content, ring)
            birth = ParticleBirth(*joined, birth.kl + ring.kl)
        return birth, features

    def _presence(
        self, presence: Float[Tensor, "batch time particles 1"], window: Window
    ) -> Float[Tensor, " batch"]:
        """Average over the window's frames the sum of all presences."""
        each = presence.sum((2, 3))
        return (each * window.valid).sum(1) / window.valid.sum(1)

    def _successive(
        self, states: Tensor, birth: ParticleBirth, dt: Float[Tensor, "batch intervals"]
    ) -> PerClip:
        """Compute the two terms whose ratio of means is the correlation of successive steps.

        A step is the change of a place over sqrt(time), less the clip's mean motion; only visible
        particles count, weighted by presence times how much they are drawn.
        """
        place = self.model.layout.split(states)[0]
        lasting = dt > 0
        step = place.diff(dim=1) / dt.clamp(min=1e-12).sqrt()[..., None, None]
        content = birth.content
        seen = content.logit.sigmoid() * content.look.norm(dim=-1, keepdim=True)
        seen = (seen * (content.logit.sigmoid() > PRESENT)).detach()[:, None]
        weight = seen * lasting[..., None, None]
        mean = (weight * step).sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True).clamp(
            min=1e-6
        )
        step = torch.where(lasting[..., None, None], step - mean, 0.0)
        scale = weight[:, :1].sum((1, 2, 3)).clamp(min=1e-6)
        square = (weight * step.square()).sum((1, 2, 3)) / scale / lasting.sum(1).clamp(min=1)
        both = lasting[:, 1:] & lasting[:, :-1]
        product = (seen * step[:, 1:] * step[:, :-1]).sum((1, 2, 3)) / scale
        return {"step_product": product / both.sum(1).clamp(min=1), "step_square": square}
