"""Importance weights of the posterior's draws: what the bound and tighter ones are means of."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.backbone import State
from sdevid.models.gaussian import Gaussian
from sdevid.models.solver_grid import solver_grid
from sdevid.models.start import StartDraw
from sdevid.objectives.latent_sde import LatentSDEObjective, step_tokens
from sdevid.sde.noise import Stream, normal
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import Serial, Ticks, Video, units


@torch.no_grad()
def log_weight(
    objective: LatentSDEObjective, video: Video, ticks: Ticks, serial: Serial
) -> Float[Tensor, " batch"]:
    """log p(x, w, z) - log q(w, z | x) at one draw of the posterior, in nats; no frame is observed.

    Its mean over draws is the evidence lower bound, and the log of the mean of K exponentials the
    tighter importance weighted one (Burda et al. 2016). `serial` keys the draw. The path's part is
    that of the solver's chain: a step z' = z + (h + g u) d + r g dW has the log ratio
    log r + 1/2 eps^2 - 1/2 (u sqrt(d) + r eps)^2, eps = dW / sqrt(d), summed over components.
    """
    model, seed = objective.model, objective.config.seed
    clips = objective.encode(video, ticks, serial, context=0)
    content, state = model.start_posterior(clips.tokens[:, 0])
    eps_w = normal(seed, serial, Stream.CONTENT, content.mean.shape[1:])
    eps_z = normal(seed, serial, Stream.INITIAL, model.latent_shape)
    w, z0 = content.at(eps_w), state.at(eps_z)
    draw = StartDraw(content, state, w, z0, eps_z)
    grid, saved = solver_grid(ticks, model.cell, objective.config.sde.steps_per_frame)
    conditions = model.prior.conditions(w, clips.context.summary)
    controls = model.control.conditions(step_tokens(clips.tokens, saved), model.side)
    taken: list[Step] = []

    def coefficients(z: State, step: int) -> Step:
        drift, diffusion = model.prior(z, conditions)
        made = Step(drift, diffusion, *model.control(z, controls[step], drift, diffusion))
        taken.append(made)
        return made

    dw = model.brownian(seed, serial).increments(grid)
    sde = objective.config.sde
    path = chain(z0, grid, dw, coefficients, sde.kernels, order=sde.order)
    decoded = model.decoder(path.states[:, saved], w)
    found = model.likelihood.log_prob(decoded, clips.frames).sum(1)
    found = found + model.start_prior.log_prob(draw, clips.context, seed, serial)
    found = found - _normal_log_prob(content, w) - _normal_log_prob(state, z0)
    weight: Tensor = found + _path_log_ratio(taken, dw, units(grid.diff(dim=1)).to(dw))
    return weight


def bound(log_weights: Float[Tensor, "draws *batch"]) -> Float[Tensor, "*batch"]:
    """log of the mean of exp over the draws: a lower bound on log p(x) that tightens with them."""
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))


def _normal_log_prob(law: Gaussian, at: Tensor) -> Float[Tensor, " batch"]:
    apart = (at - law.mean) / law.scale
    each = -0.5 * apart.square() - law.scale.log() - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(1)


def _path_log_ratio(
    taken: list[Step],
    dw: Float[Tensor, "batch steps *latent"],
    spans: Float[Tensor, "batch steps"],
) -> Float[Tensor, " batch"]:
    total = dw.new_zeros(len(dw))
    for step, increment, span in zip(taken, dw.unbind(1), spans.unbind(1), strict=True):
        root = span.sqrt().view(-1, *[1] * (increment.dim() - 1))
        eps = torch.where(root > 0, increment / root.clamp(min=1e-12), 0.0)
        width = torch.ones_like(eps) if step.width is None else step.width
        control = 0.0 if step.control is None else step.control
        ratio = width.log() + 0.5 * eps.square() - 0.5 * (control * root + width * eps).square()
        total = total + torch.where(root > 0, ratio, 0.0).flatten(1).sum(1)
    return total
