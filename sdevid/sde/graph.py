"""Solves a chain in training as one CUDA graph, where no fused kernel takes its drift.

Small steps of a convolution or of attention cost their launches' time in Python; a graph replays
them without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor, nn

from sdevid import types
from sdevid.errors import UserError
from sdevid.sde import path_kl, solvers
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import EULER, Coefficients, GraphForm, Path, Problem, check_path

NAME = "graph"
Solved = tuple[Tensor, Tensor, Tensor]


class _Graphs:
    """The graphs captured for one module, by the shapes of their inputs; they go with it."""

    def __init__(self) -> None:
        self.by_shapes: dict[tuple[object, ...], Callable[..., Solved]] = {}


_GRAPHS: WeakKeyDictionary[nn.Module, _Graphs] = WeakKeyDictionary()


def unsupported(problem: Problem) -> str | None:
    """Why this solver cannot take `problem`, or None if it can."""
    if problem.scheme != EULER:
        return f"the scheme is {problem.scheme}"
    if problem.order == 2:
        return "the state is of second order"
    if problem.gradient != "backprop":
        return f"gradient is {problem.gradient}"
    if isinstance(problem.graph, str):
        return problem.graph
    if not problem.start.is_cuda:
        return f"the state is on {problem.start.device.type}, and graphs are CUDA's"
    if not torch.is_grad_enabled():
        return "no gradient is asked for"
    return None


def solve(problem: Problem) -> Path:
    """The controlled path; its tensors hold until the next problem of the same shapes is solved.

    A graph is captured for each shape of batch at its first step; on a CPU the same is solved
    without one. Raises UserError where shapes, times or devices do not fit.
    """
    start, ticks, noise, form = problem.start, problem.ticks, problem.noise, problem.graph
    if isinstance(form, str):
        raise UserError(f"the graph solver does not take this problem: {form}")
    check_path(start, ticks, noise)
    dt = types.units(ticks.diff(dim=1)).to(start.device, start.dtype)
    dw = noise.increments(ticks) if isinstance(noise, Brownian) else noise
    inputs = (start, dt, dw.to(start.dtype), *form.tensors)
    graphs = _GRAPHS.setdefault(form.modules[0], _Graphs()).by_shapes
    key = (len(form.tensors), *((x.shape, x.dtype, x.requires_grad, x.device) for x in inputs))
    if key not in graphs:
        graphs[key] = captured(_chain_of(form), inputs)
    states, kl, energy = graphs[key](*inputs)
    saved = slice(None) if problem.saved is None else list(problem.saved)
    return Path(states[:, saved], kl, energy)


def _chain_of(form: GraphForm) -> Chain:
    modules = tuple(proxy(module) for module in form.modules)  # else no entry would ever go
    make = form.coefficients_of
    return Chain(nn.ModuleList(form.networks), lambda *tensors: make(*modules, *tensors))


class Chain(nn.Module):
    """The chain with all that it reads as tensors in: start, dt, dw, then the conditions.

    `coefficients_of(*conditions)` gives the coefficients as `stepwise.chain` takes them; its
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


def captured(chain: Chain, examples: Sequence[Tensor]) -> Callable[..., Solved]:
    """`chain` as CUDA graphs of its forward and backward passes, for inputs like `examples`.

    Shapes and which inputs need gradients are those of `examples` from then on, and what a call
    returns holds until the next. On a CPU there is nothing to capture and `chain` comes back as it
    is. Raises UserError where the inputs lie on different devices.
    """
    devices = {tensor.device for tensor in examples}
    if len(devices) > 1:
        raise UserError(f"a graph's inputs lie on {sorted(map(str, devices))}; move them to one")
    if not examples[0].is_cuda:
        return chain
    # Each replay overwrites the tensors that it was captured with: not the caller's.
    own = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in examples)
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # a cast of a weight is part of the graph
    try:
        graph = torch.cuda.make_graphed_callables(chain, own)
    finally:
        torch.set_autocast_cache_enabled(cached)
    return cast(Callable[..., Solved], graph)
