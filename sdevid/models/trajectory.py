"""The backbone of a vector latent as `sde.trajectory` takes it: networks, shifts and settings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdevid.models.backbone import Conditions, Control, Prior, StateNetwork
from sdevid.sde.trajectory import Diffusion, Network, Posterior


def network(layers: StateNetwork) -> Network:
    """The layers but for the first one's bias, which `shift` holds."""
    inner = tuple(_weights(layer) for layer in layers.hidden)
    return Network(_weights(layers.first)[0], inner, _weights(layers.last))


def shift(layers: StateNetwork, condition: Tensor) -> Tensor:
    """What the first layer adds to its product, float32."""
    return condition.float() + _weights(layers.first)[1]


def diffusion(prior: Prior, conditions: Conditions) -> Tensor | Diffusion:
    """g, as it depends on the state or not."""
    if conditions.slope is None:
        return conditions.diffusion
    floor, calculus = prior.config.diffusion_floor, prior.stratonovich
    return Diffusion(conditions.diffusion, conditions.slope, floor, prior.start, calculus)


def posterior(control: Control, conditions: tuple[Tensor, ...]) -> Posterior:
    """The control as it is read beside the prior. `conditions`: one a step."""
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
