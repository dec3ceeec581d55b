"""A solve captured as a CUDA graph is the chain."""

import pytest
import torch
from torch import nn

from sdevid.errors import UserError
from sdevid.sde.graph import Chain, captured
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import units

CELL = 4800


def _check(device: str) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(2, 6, 3, padding=1).to(device)

    def coefficients_of(context: torch.Tensor):
        def coefficients(z: torch.Tensor, k: int) -> Step:
            drift, control, width = network(z).chunk(3, 1)
            control = control + context[:, k, :, None, None]
            return Step(drift, z.new_full((), 0.5), control, torch.sigmoid(width + 3))

        return coefficients

    start = torch.randn(3, 2, 4, 4, device=device, requires_grad=True)
    context = torch.randn(3, 5, 2, device=device, requires_grad=True)
    ticks = (torch.arange(6) * CELL).expand(3, -1)
    dt = units(ticks.diff(dim=1)).to(device)
    run = None
    for serial in (torch.arange(3), torch.arange(3) + 9):
        dw = Brownian(1, serial.to(device), (2, 4, 4), CELL).increments(ticks)
        inputs = (start, dt, dw, context)
        run = run or captured(Chain(network, coefficients_of), inputs)
        leaves = [start, context, *network.parameters()]
        results = []
        states, kl, energy = run(*inputs)
        results.append(
            [states, kl, energy, *torch.autograd.grad(states.square().sum() + kl.sum(), leaves)]
        )
        path = chain(start, ticks.to(device), dw, coefficients_of(context), "reference")
        loss = path.states.square().sum() + path.kl.sum()
        energy = path.control_energy.detach()
        results.append([path.states, path.kl, energy, *torch.autograd.grad(loss, leaves)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_solve_is_the_chain():
    _check("cpu")


@pytest.mark.gpu
def test_replayed_graph_is_the_chain():
    _check("cuda")


@pytest.mark.usefixtures("without_type_checks")
def test_inputs_on_two_devices_are_refused():
    with pytest.raises(UserError, match="move them to one"):
        captured(None, [torch.zeros(1), torch.zeros(1, device="meta")])
