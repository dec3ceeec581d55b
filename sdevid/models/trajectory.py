"""Solves the backbone: a vector latent as one operator, anything else step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.models import graphed
from sdevid.models.backbone import Conditions, Control, Prior, State, StateNetwork
from sdevid.models.guide import Toward
from sdevid.sde import integrate, second_order
from sdevid.sde import trajectory as operator
from sdevid.sde.integrate import Path, Step
from sdevid.sde.noise import Brownian
from sdevid.sde.trajectory import Diffusion, Network, Posterior

Controls = tuple[Tensor, ...]  # one condition a step


def takes(config: Config) -> bool:
    """Whether the latent is solved as one operator.

    Not where ZeRO 3 gathers weights as their own modules are called, nor where frames ahead make
    the drift depend on time, nor for a state of second order.
    """
    sde = config.sde
    whole = sde.latent == "vector" and sde.order == 1 and sde.kernels != "reference"
    return whole and config.zero_stage < 3 and not config.observation.ahead


def solve(
    config: Config,
    start: State,
    ticks: Int64[Tensor, "batch points"],
    noise: Brownian | Float[Tensor, "batch steps *latent"],
    saved: list[int],
    prior: tuple[Prior, Conditions],
    control: tuple[Control, Controls] | None = None,
    toward: Toward | None = None,
) -> Path:
    """The prior's path, or the posterior's that `control` steers, at the grid points `saved`.

    `toward` is what observed frames ahead add to the drift at each step.

    Both ways give the same path up to rounding.
    """
    kernels = config.sde.kernels
    if takes(config):
        given = (start, ticks, noise, *_prior(*prior))
        steered = None if control is None else posterior(*control)
        return operator.solve(*given, steered, kernels, saved)
    if graphed.takes(config) and control is not None and torch.is_grad_enabled():
        path = graphed.solve(start, ticks, noise, prior, control)
        return path._replace(states=path.states[:, saved])
    module, conditions = prior
    steps = None if toward is None else toward.unbind()

    def coefficients(z: State, step: int) -> Step:
        drift, diffusion = module(z, conditions, None if steps is None else steps[step])
        if control is None:
            return Step(drift, diffusion)
        return Step(drift, diffusion, *control[0](z, control[1][step], drift, diffusion))

    path = chain_of(config)(start, ticks, noise, coefficients, kernels)
    return path._replace(states=path.states[:, saved])


def chain_of(config: Config) -> Callable[..., Path]:
    """The chain of the order that `sde.order` names, step by step."""
    return second_order.chain if config.sde.order == 2 else integrate.chain


def step_of(config: Config) -> Callable[[State, Tensor, Tensor, float, Tensor], State]:
    """(z, drift, diffusion, dt, dW) to the state after one step of that chain without control."""
    return second_order.moved if config.sde.order == 2 else integrate.moved


def describe(config: Config, device: torch.device, clips: int) -> str:
    """One line for the start of a run: how `solve` will run `clips` at once on `device`, and why.

    Raises UserError where `sde.kernels` cannot run there.
    """
    if not config.capabilities.simulates:
        return "no SDE solve in training"
    steps = integrate.describe(device, config.sde.kernels)
    if graphed.takes(config):
        return "SDE solve: a CUDA graph" if device.type == "cuda" else f"{steps}; no graph on a CPU"
    if not takes(config):
        return steps
    features = config.encoder.features
    with torch.device("meta"):
        prior = Prior(config.sde, features, stratonovich=config.sde_type == "stratonovich")
        control = Control(config.sde, features)
        conditions = prior.conditions(
            torch.empty(1, config.sde.content_size), torch.empty(1, features)
        )
        drift, _, _ = _prior(prior, conditions)
        steered = posterior(control, (torch.empty(1, config.sde.hidden),))
    count = (config.sequence_length - 1) * config.sde.steps_per_frame
    start = torch.empty(clips, config.sde.latent_size, device=device)
    return operator.describe(start, drift, steered, count)


def _prior(prior: Prior, conditions: Conditions) -> tuple[Network, Tensor, Tensor | Diffusion]:
    moved = shift(prior.drift, conditions.drift)
    return network(prior.drift), moved, diffusion(prior, conditions)


def network(layers: nn.Module) -> Network:
    """The layers but for the first one's bias, which `shift` holds."""
    assert isinstance(layers, StateNetwork)
    inner = tuple(_weights(layer) for layer in layers.hidden)
    return Network(_weights(layers.first)[0], inner, _weights(layers.last))


def shift(layers: nn.Module, condition: Tensor) -> Tensor:
    """What the first layer adds to its product, float32."""
    assert isinstance(layers, StateNetwork)
    return condition.float() + _weights(layers.first)[1]


def diffusion(prior: Prior, conditions: Conditions) -> Tensor | Diffusion:
    """g, as it depends on the state or not."""
    if conditions.slope is None:
        return conditions.diffusion
    floor, calculus = prior.config.diffusion_floor, prior.stratonovich
    return Diffusion(conditions.diffusion, conditions.slope, floor, prior.start, calculus)


def posterior(control: Control, conditions: Controls) -> Posterior:
    """The control as it is read beside the prior."""
    return Posterior(
        network(control.network),
        shift(control.network, torch.stack(conditions)),
        bound=control.bound,
        width=control.chain,
        unit=control.unit,
        own=control.own_drift,
    )


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias
