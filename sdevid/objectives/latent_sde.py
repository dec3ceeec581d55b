"""The evidence lower bound by simulating the posterior (Li et al. 2020), of the solver's chain."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sdevid.models import trajectory
from sdevid.models.aim import Tracks, aims, tracks
from sdevid.models.backbone import State
from sdevid.models.encoder import Tokens
from sdevid.models.latent_sde import LatentSDE
from sdevid.models.solver_grid import solver_grid
from sdevid.objectives import futures, prior_consistency
from sdevid.objectives.history_objective import EncodedClips, HistoryObjective, PathTerms
from sdevid.objectives.prior_consistency import Rolled
from sdevid.objectives.start import Start
from sdevid.sde import path_kl
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import units


class LatentSDEObjective(HistoryObjective):
    """The ELBO of clips given their first frames; its negative, with a KL weight, is the loss."""

    model: LatentSDE

    def path(self, clips: EncodedClips, start: Start) -> PathTerms:
        """Draw the controlled path. A step's control sees the frames on both sides of it."""
        model, config = self.model, self.config
        grid, saved = solver_grid(clips.ticks, model.cell, config.sde.steps_per_frame)
        conditions = model.conditions(start.content, clips.context, start.states[:, 0])
        known = self.tracks(clips)
        controls = self.controls(clips, grid, saved, known)
        noise = model.brownian(config.seed, clips.serial)
        bridge = model.bridge_terms(clips.future)
        drive = trajectory.Drive(model.prior, conditions, (model.control, controls), bridge)
        path = trajectory.solved(config, start.states[:, 0], grid, noise, saved, drive)
        rolled = Rolled(
            path.states, clips.ticks, clips.window, conditions, clips.future, clips.serial
        )
        future = futures.terms(model, clips, start, conditions)
        size = math.prod(model.noise_shape)
        terms = {
            "kl_path": path.kl,
            "control_energy": path.control_energy,  # 1/2 sum |u|^2 dt
            "gap": path.kl / (clips.window.intervals() * size),
        }
        carried = model.decoder.carried
        if carried is not None and known is not None:
            terms["beyond_walls"] = carried.misfit(known.places(), clips.window.valid)
        return PathTerms(
            states=path.states,
            terms=terms | prior_consistency.terms(model, rolled) | future,
            diffusion=model.prior.diffusion(path.states.transpose(0, 1), conditions),
        )

    def loss(self, means: dict[str, Tensor], kl_weight: float | Tensor) -> Float[Tensor, ""]:
        """Add to the loss what the walls of carried layers are learnt from."""
        return super().loss(means, kl_weight) + means.get("beyond_walls", 0.0)

    def tracks(self, clips: EncodedClips) -> Tracks | None:
        """Follow the layers of the observed frame, where one is carried."""
        last, carried = clips.context.last, self.model.decoder.carried
        if carried is None or last is None:
            return None
        return tracks(clips.frames, last.maps[0][:, :-1].float(), carried.layers)

    def controls(
        self,
        clips: EncodedClips,
        grid: Int64[Tensor, "batch points"],
        saved: list[int],
        known: Tracks | None,
    ) -> tuple[Tensor, ...]:
        """Compute what each step's control is conditioned on: its token, and where layers are."""
        model = self.model
        conditions = model.control.conditions(step_tokens(clips.tokens, saved), model.sides)
        carried = model.decoder.carried
        if carried is None or known is None:
            return conditions
        goals = aims(known, carried, self.config.map_shape, units(grid.diff(dim=1)))
        both = zip(conditions, goals.unbind(1), strict=True)
        return tuple(torch.cat([each, goal.to(each)], dim=1) for each, goal in both)

    def weighted_path(
        self, clips: EncodedClips, start: Start
    ) -> tuple[Float[Tensor, "batch time *latent"], Float[Tensor, " batch"]]:
        """Draw the controlled path; return it at the frames with its log p / q in nats."""
        model, sde = self.model, self.config.sde
        grid, saved = solver_grid(clips.ticks, model.cell, sde.steps_per_frame)
        conditions = model.conditions(start.content, clips.context, start.states[:, 0])
        controls = self.controls(clips, grid, saved, self.tracks(clips))
        steps: list[Step] = []

        def coefficients(z: State, k: int) -> Step:
            drift, g = model.prior(z, conditions)
            steps.append(Step(drift, g, *model.control(z, controls[k], drift, g)))
            return steps[-1]

        dw = model.brownian(self.config.seed, clips.serial).increments(grid)
        path = chain(start.states[:, 0], grid, dw, coefficients, sde.kernels, saved, sde.order)
        return path.states, path_kl.log_ratio(steps, dw, units(grid.diff(dim=1)).to(dw))


def step_tokens(tokens: Tokens, saved: list[int]) -> Float[Tensor, "batch steps cells features"]:
    """Interpolate a token for each solver step from those of the frames around its end.

    As many steps lie between any two frames.
    """
    steps = saved[1] - saved[0]
    share = torch.arange(1, steps + 1, device=tokens.device).to(tokens.dtype) / steps
    before, after = tokens[:, :-1, None], tokens[:, 1:, None]
    return torch.lerp(before, after, share[:, None, None]).flatten(1, 2)
