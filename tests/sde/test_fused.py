"""The chain as one operator is the chain."""

import pytest
import torch
from sdevid_kernels.em_trajectory.reference import Network, Posterior, Reading

from sdevid.errors import UserError
from sdevid.sde import fused
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Problem, SiluForm, Step
from sdevid.sde.stepwise import chain

BATCH, SIZE, HIDDEN, STEPS, CELL = 3, 2, 5, 4, 4800


def problem(start, ticks, noise, silu) -> Problem:
    return Problem(start, ticks, noise, lambda z, _: Step(z, z), silu=silu)


def _network(outputs: int) -> Network:
    shapes = [(HIDDEN, SIZE), (HIDDEN, HIDDEN), (HIDDEN,), (outputs, HIDDEN), (outputs,)]
    first, inner, shift, last, bias = [torch.randn(shape).requires_grad_() for shape in shapes]
    return Network(first, ((inner, shift),), (last, bias))


@pytest.mark.parametrize("cell", [CELL, 5000])
@pytest.mark.parametrize("prior", [True, False])
def test_trajectory_is_the_chain(prior, cell):
    torch.manual_seed(0)
    ticks = (torch.arange(STEPS + 1) * CELL).expand(BATCH, -1)
    ticks = torch.cat([ticks, ticks[:, -1:]], 1)  # padded
    noise = Brownian(1, torch.arange(BATCH), (SIZE,), cell)
    drift, control = _network(SIZE), _network(2 * SIZE)
    start, shift, g = (torch.rand(BATCH, n, requires_grad=True) for n in (SIZE, HIDDEN, SIZE))
    shifts = torch.randn(STEPS + 1, BATCH, HIDDEN, requires_grad=True)
    posterior = None if prior else Posterior(control, shifts, Reading(bound=3.0, width=True))

    def coefficients(z: torch.Tensor, k: int) -> Step:
        h = drift(z, shift)
        if prior:
            return Step(h, g)
        raw, width = control(z, shifts[k]).chunk(2, 1)
        return Step(h, g, 3 * torch.tanh(raw / 3), torch.sigmoid(width + 3))

    leaves = [start, shift, g, drift.first, *drift.last]
    leaves += [] if prior else [shifts, control.first, *control.hidden[0]]
    results = []
    for path in (
        fused.solve(problem(start, ticks, noise, SiluForm(drift, shift, g, posterior))),
        chain(start, ticks, noise, coefficients),
    ):
        loss = path.states.square().sum() + path.kl.sum()
        results.append([*path, *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_fused_without_networks_is_refused():
    ticks = torch.zeros(1, 2, dtype=torch.int64)
    vague = problem(torch.zeros(1, 2), ticks, torch.zeros(1, 1, 2), "it has a convolution")
    with pytest.raises(UserError, match="it has a convolution"):
        fused.solve(vague)


def _prior(g: torch.Tensor, ticks: torch.Tensor, dw: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    shift = torch.zeros(len(dw), HIDDEN)
    form = SiluForm(_network(SIZE), shift, g)
    return fused.solve(problem(torch.ones(len(dw), SIZE), ticks, dw, form)).states


def test_lost_clip_comes_back_in_nans_and_alone():
    """An exception on one rank of a training would hang the rest."""
    ticks = torch.tensor([[0, 100, 200]]).expand(2, -1)
    g = torch.tensor([[1.0, 1.0], [torch.nan, 1.0]])
    states = _prior(g, ticks, torch.ones(2, 2, SIZE))
    assert states[0].isfinite().all()
    assert states[1, -1].isnan().any()


@pytest.mark.parametrize(
    ("ticks", "steps", "g", "message"),
    [
        ([0, 100, 50], 2, 1.0, "ticks fall by 50"),
        ([0, 100], 2, 1.0, "noise has shape"),
        ([0, 100, 200], 2, 0.0, "diffusion is 0 somewhere"),
        ([0, 100, 200], 2, -1.0, "diffusion holds -1, but the path KL compares"),
    ],
)
def test_fused_solver_refuses_misfit_arguments(ticks, steps, g, message):
    with pytest.raises(UserError, match=message):
        _prior(torch.full((1, SIZE), g), torch.tensor([ticks]), torch.ones(1, steps, SIZE))
