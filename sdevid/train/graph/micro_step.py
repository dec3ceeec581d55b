"""A micro-batch to the terms of its loss and their gradients: what a graph holds.

All that changes between micro-batches of one shape comes in as a tensor, nothing is read back from
the device, and shapes follow from those of the inputs and the rhythm of their times alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Terms = dict[str, Tensor]  # scalars, among them "loss"


class Result(NamedTuple):
    """Terms by name, and the gradient of the loss for each parameter that it depends on."""

    names: tuple[str, ...]
    values: Tensor  # of the terms, float32
    parameters: tuple[nn.Parameter, ...]
    gradients: tuple[Tensor, ...]

    def terms(self, values: Tensor) -> Terms:
        """Name `values` by the terms."""
        return dict(zip(self.names, values.unbind(), strict=True))


Step = Callable[[Inputs], Result]


def micro_step(forward: Callable[..., Terms], module: nn.Module, inputs: Inputs) -> Result:
    """Compute `forward(**inputs)` and the gradients of its loss, whose hooks do not run."""
    terms = forward(**inputs)
    parameters = [p for p in module.parameters() if p.requires_grad]
    with torch.autocast(terms["loss"].device.type, enabled=False):
        gradients = torch.autograd.grad(terms["loss"], parameters, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    values = torch.stack([term.detach().float() for term in terms.values()])
    return Result(tuple(terms), values, tuple(p for p, _ in used), tuple(g for _, g in used))
