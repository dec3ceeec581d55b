"""A whole solve as one CUDA graph, for drifts that no fused kernel takes (convolution, attention).

Small steps of such a drift cost their launches' time in Python; a graph replays them without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sdevid.errors import UserError
from sdevid.sde import path_kl, solvers
from sdevid.sde.integrate import Coefficients

Solved = tuple[Tensor, Tensor, Tensor]


class Solve(nn.Module):
    """The chain with all that it reads as tensors in: start, dt, dw, then the conditions.

    `coefficients_of(*conditions)` gives the coefficients as `integrate.chain` takes them; its
    networks must be those of `networks`, all of whose parameters the graph takes part in. Returns
    states (batch, points, *shape), the path's KL (batch,) and the control's part of it, which has
    no gradient of its own.
    """

    def __init__(self, networks: nn.Module, coefficients_of: Callable[..., Coefficients]) -> None:
        super().__init__()
        self.networks, self.coefficients_of = networks, coefficients_of

    def forward(self, start: Tensor, dt: Tensor, dw: Tensor, *conditions: Tensor) -> Solved:
        coefficients = self.coefficients_of(*conditions)
        z, states = start, [start]
        energy, narrowed = start.new_zeros(len(start)), start.new_zeros(len(start))
        spans = dt.view(*dt.shape, *[1] * (start.dim() - 1)).unbind(1)
        for k, increment in enumerate(dw.unbind(1)):
            step = coefficients(z, k)
            if step.control is not None:
                control = step.control.expand_as(z)[:, None]
                energy = energy + path_kl.control_energy(control, dt[:, k : k + 1])
            if step.width is not None:
                width = step.width.expand_as(z)[:, None]
                narrowed = narrowed + path_kl.width_kl(width, dt[:, k : k + 1])
            z = solvers.chain_step(z, *step, spans[k], increment)
            states.append(z)
        return torch.stack(states, 1), energy + narrowed, energy.detach()


def captured(solve: Solve, examples: Sequence[Tensor]) -> Callable[..., Solved]:
    """`solve` as CUDA graphs of its forward and backward passes, for inputs like `examples`.

    Shapes and which inputs need gradients are those of `examples` from then on, and what a call
    returns holds until the next. On a CPU there is nothing to capture and `solve` comes back as it
    is. Raises UserError where the inputs lie on different devices.
    """
    devices = {tensor.device for tensor in examples}
    if len(devices) > 1:
        raise UserError(f"a graph's inputs lie on {sorted(map(str, devices))}; move them to one")
    if not examples[0].is_cuda:
        return solve
    # Each replay overwrites the tensors that it was captured with: not the caller's.
    own = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in examples)
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # a cast of a weight is part of the graph
    try:
        made = torch.cuda.make_graphed_callables(solve, own)
    finally:
        torch.set_autocast_cache_enabled(cached)
    return cast(Callable[..., Solved], made)
