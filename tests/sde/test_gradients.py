"""Gradients by every way of bounding memory, and the memory that each takes."""

import pytest
import torch
from torch import nn

from sdevid.errors import UserError
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.stepwise import integrate

CELL = 1200


class _Model(nn.Module):
    def __init__(self, size: int = 3, hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drift = nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, size))
        self.control = nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, size))
        self.level = nn.Parameter(torch.zeros(size))

    def sde(self, context: torch.Tensor) -> SDE:
        return SDE(
            lambda t, z: self.drift(z) - 0.5 * z + torch.sin(t),
            lambda _t, z: 0.3 + torch.sigmoid(self.level + 0.5 * torch.tanh(z)),
            lambda _t, z: self.control(z + context),
            calculus="stratonovich",
            tensors=(*self.parameters(), context),
        )


def _gradients(solver: str, gradient: str, dtype: torch.dtype, steps: int = 12) -> list:
    model = _Model().to(dtype)
    start = torch.full((4, 3), 0.4, dtype=dtype, requires_grad=True)
    seed = torch.full((4, 3), 0.2, dtype=dtype, requires_grad=True)
    context = 2 * seed  # no leaf: gradients must flow on through it
    ticks = (torch.arange(steps + 1) * CELL).expand(4, -1)
    noise = Brownian(1, torch.arange(4), (3,), CELL)
    path = integrate(
        model.sde(context), start, ticks, noise, solver, list(range(0, steps + 1, 4)), gradient
    )
    loss = path.states.square().sum() + (path.kl * torch.arange(1, 5)).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [start, seed, *model.parameters()])]


@pytest.mark.parametrize("solver", ["euler_maruyama", "milstein", "heun", "midpoint"])
def test_checkpointed_gradients_are_those_of_backpropagation(solver):
    want = _gradients(solver, "backprop", torch.float64)
    torch.testing.assert_close(_gradients(solver, "checkpoint", torch.float64), want)


def test_reversible_gradients_are_exact():
    want = _gradients("reversible_heun", "backprop", torch.float64)
    for gradient in ("checkpoint", "reversible"):
        got = _gradients("reversible_heun", gradient, torch.float64)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    single = _gradients("reversible_heun", "reversible", torch.float32, steps=200)
    double = _gradients("reversible_heun", "backprop", torch.float64, steps=200)
    for got, exact in zip(single, double, strict=True):
        assert float((got - exact).norm() / exact.norm()) < 1e-3


def test_reversible_gradient_asks_for_every_parameter():
    model, context = _Model(), torch.zeros(2, 3)
    sde = model.sde(context)
    short = SDE(sde.drift, sde.diffusion, sde.control, "stratonovich", tensors=(context,))
    ticks = (torch.arange(3) * CELL).expand(2, -1)
    noise = Brownian(1, torch.arange(2), (3,), CELL)
    with pytest.raises(UserError, match=r"not named in SDE\.tensors"):
        integrate(short, torch.ones(2, 3), ticks, noise, "reversible_heun", gradient="reversible")
    with pytest.raises(UserError, match="needs solver reversible_heun"):
        integrate(sde, torch.ones(2, 3), ticks, noise, "heun", gradient="reversible")


def _saved_bytes(gradient: str, steps: int) -> int:
    """Bytes kept for the backward pass, each storage once, parameters aside."""
    model, kept = _Model(16, 32), {}
    context = torch.zeros(64, 16)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), context)}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own:
            kept[storage] = tensor.untyped_storage()
        return tensor

    ticks = (torch.arange(steps + 1) * CELL).expand(64, -1)
    noise = Brownian(1, torch.arange(64), (16,), CELL)
    start = torch.zeros(64, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sde = model.sde(context)
        integrate(sde, start, ticks, noise, "reversible_heun", [0, steps // 2, steps], gradient)
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_kept_against_steps():
    few, many = 8, 64
    assert _saved_bytes("backprop", many) > 6 * _saved_bytes("backprop", few)
    for gradient in ("checkpoint", "reversible"):
        assert _saved_bytes(gradient, many) == _saved_bytes(gradient, few)
    assert _saved_bytes("reversible", many) <= _saved_bytes("checkpoint", many)
