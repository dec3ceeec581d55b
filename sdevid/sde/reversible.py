"""Reversible Heun with exact gradients in memory that does not grow with the number of steps.

The backward pass undoes each step from the last state (Kidger et al. 2021, "Efficient and accurate
gradients for neural SDEs", algorithm 2) and draws its noise again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdevid.errors import UserError
from sdevid.sde.equation import SDE, Rates
from sdevid.sde.grid import Grid, checkpointed
from sdevid.sde.solvers import Interval, ReversibleState, reversible_heun


def solve_by_autograd(
    sde: SDE, start: Tensor, grid: Grid, recompute: bool
) -> tuple[Tensor, Tensor]:
    """Solve by autograd; return the states at the saves and 1/2 int |u|^2 dt.

    With `recompute` only the states at the saves are kept; the steps between are solved again in
    the backward pass.
    """

    def solve(first: int, last: int, z: Tensor, companion: Tensor, *rates: Tensor) -> Any:
        state, energy = ReversibleState(z, companion, Rates(*rates)), z.new_zeros(len(z))
        for interval in grid.intervals(first, last):
            state, end = reversible_heun(sde, state, interval)
            energy = energy + end.energy
        return state, energy

    state = ReversibleState(start, start, sde.rates(grid.time(0), start))
    energy, states = start.new_zeros(len(start)), []
    for first, last in grid.spans():
        parts = state.z, state.companion, *state.rates
        state, spent = checkpointed(solve, recompute and last > first, first, last, *parts)
        energy = energy + spent
        states.append(state.z)
    return torch.stack(states, 1), energy


def solve_by_inversion(sde: SDE, start: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Solve as `solve_by_autograd`, but undo each step in the backward pass.

    Differentiable towards `start` and the tensors named in `sde.tensors`. Raises UserError where
    the fields use a parameter that is not named there.
    """
    if torch.is_grad_enabled():
        _check_named(sde, grid.time(0), start)
    states, energy = _Solve.apply(sde, grid, start, *sde.tensors)  # type: ignore[no-untyped-call]
    return states, energy


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sde: SDE, grid: Grid, start: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.sde, ctx.grid, ctx.tensors = sde, grid, tensors
        state = ReversibleState(start, start, sde.rates(grid.time(0), start))
        energy, states = start.new_zeros(len(start)), []
        for first, last in grid.spans():
            for part in grid.slices(first, last):
                for interval in grid.intervals(*part):
                    state, end = reversible_heun(sde, state, interval)
                    energy += end.energy
            states.append(state.z)
        ctx.save_for_backward(state.z, state.companion)
        return torch.stack(states, 1), energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_energy: Tensor) -> tuple[Tensor | None, ...]:
        z, companion = ctx.saved_tensors
        back = _Backward(ctx.sde, ctx.tensors, z, companion, grad_energy)
        spans = list(ctx.grid.spans())
        for number, (first, last) in reversed(list(enumerate(spans))):
            back.grad_z += grad_states[:, number]
            for part in reversed(ctx.grid.slices(first, last)):
                for interval in reversed(ctx.grid.intervals(*part)):
                    back.step(interval)
        return None, None, back.finish(ctx.grid.time(0)), *back.grad_tensors


class _Backward:
    """Gradients on their way back, with the state that they are taken at."""

    def __init__(
        self, sde: SDE, tensors: tuple[Tensor, ...], z: Tensor, companion: Tensor, energy: Tensor
    ) -> None:
        self.sde, self.z, self.companion = sde, z, companion
        self.grad_energy = energy
        self.grad_z, self.grad_companion = torch.zeros_like(z), torch.zeros_like(z)
        self.grad_rates = Rates(torch.zeros_like(z), torch.zeros_like(z), z.new_zeros(len(z)))
        self.wanted = [tensor for tensor in tensors if tensor.requires_grad]
        self.indices = [i for i, tensor in enumerate(tensors) if tensor.requires_grad]
        self.grad_tensors: list[Tensor | None] = [
            torch.zeros_like(tensor) if tensor.requires_grad else None for tensor in tensors
        ]

    def step(self, interval: Interval) -> None:
        """Undo one step, and carry the gradients to its start."""
        t, dt, dw, _ = interval
        half = Rates(0.5 * dt * self.grad_z, 0.5 * dw * self.grad_z, self._energy_share(dt))
        second, grad = self._through_rates(t + dt, _add(self.grad_rates, half))
        grad = grad + self.grad_companion
        companion = torch.addcmul(2 * self.z - self.companion, second.drift, dt, value=-1)
        companion = torch.addcmul(companion, second.diffusion, dw, value=-1)
        with torch.no_grad():
            first = self.sde.rates(t, companion)
        both = _add(first, second)
        z = torch.addcmul(self.z, both.drift, dt, value=-0.5)
        self.z = torch.addcmul(z, both.diffusion, dw, value=-0.5)
        self.companion = companion
        self.grad_z, self.grad_companion = self.grad_z + 2 * grad, -grad
        self.grad_rates = Rates(half.drift + dt * grad, half.diffusion + dw * grad, half.energy)

    def finish(self, t: Tensor) -> Tensor:
        """Compute the gradient of the start, where state and companion are one."""
        return self.grad_z + self.grad_companion + self._through_rates(t, self.grad_rates)[1]

    def _through_rates(self, t: Tensor, grad: Rates) -> tuple[Rates, Tensor]:
        with torch.enable_grad():
            at = self.companion.detach().requires_grad_()
            rates = self.sde.rates(t, at)
        pairs = [(r, g) for r, g in zip(rates, grad, strict=True) if r.requires_grad]
        if not pairs:
            return rates, torch.zeros_like(at)
        outputs, grads = zip(*((r, g.expand_as(r)) for r, g in pairs), strict=True)
        gradients = torch.autograd.grad(outputs, [at, *self.wanted], grads, allow_unused=True)
        for index, value in zip(self.indices, gradients[1:], strict=True):
            gathered = self.grad_tensors[index]
            if value is not None and gathered is not None:
                gathered += value
        detached = Rates(*(rate.detach() for rate in rates))
        return detached, torch.zeros_like(at) if gradients[0] is None else gradients[0]

    def _energy_share(self, dt: Tensor) -> Tensor:
        return 0.5 * dt.flatten() * self.grad_energy


def _add(one: Rates, other: Rates) -> Rates:
    return Rates(*(a + b for a, b in zip(one, other, strict=True)))


def _check_named(sde: SDE, t: Tensor, z: Tensor) -> None:
    named = {id(tensor) for tensor in sde.tensors}
    inner = {tensor.grad_fn for tensor in sde.tensors if tensor.grad_fn is not None}
    with torch.enable_grad():
        rates = sde.rates(t, z.detach())
    todo, visited = [rate.grad_fn for rate in rates], set(inner)
    while todo:
        node = todo.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in named:
            raise UserError(
                f"a parameter of shape {tuple(leaf.shape)} is used by the SDE but not named in "
                "SDE.tensors, so it would get no gradient; add it, or use gradient='checkpoint'"
            )
        todo += [following for following, _ in node.next_functions]
