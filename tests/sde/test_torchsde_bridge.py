"""Our solvers beside torchsde's on one Brownian path."""

import pytest
import torch

from sdevid.sde import torchsde_bridge
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.stepwise import integrate
from sdevid.types import TICKS_PER_UNIT

STEP = TICKS_PER_UNIT // 16
TICKS = (torch.arange(17) * STEP).expand(5, -1)


def _noise(cell: int = STEP) -> Brownian:
    return Brownian(2, torch.arange(5), (3,), cell)


def _sde(calculus: str, additive: bool = False) -> SDE:
    return SDE(
        lambda t, z: z - z**3 + torch.cos(t),
        (lambda t, z: 0.4 + 0.2 * t + 0 * z)
        if additive
        else (lambda _t, z: 0.4 + 0.1 * torch.sin(z)),
        lambda _t, z: 0.3 * z,
        calculus=calculus,
        noise="additive" if additive else "diagonal",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "calculus"),
    [
        ("euler_maruyama", "euler", "ito"),
        ("milstein", "milstein", "ito"),
        ("heun", "heun", "stratonovich"),
        ("midpoint", "midpoint", "stratonovich"),
        ("reversible_heun", "reversible_heun", "stratonovich"),
        ("srk", "srk", "ito"),
    ],
)
def test_same_states_as_torchsde(ours, theirs, calculus):
    sde = _sde(calculus, additive=ours == "srk")
    start = torch.full((5, 3), 0.5, dtype=torch.float64)
    mine = integrate(sde, start, TICKS, _noise(), ours).states
    other = torchsde_bridge.integrate(sde, start, TICKS, _noise(), theirs).states
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_adaptive_steps_follow_the_same_path(calculus):
    sde, start = _sde(calculus), torch.full((5, 3), 0.5)
    few = TICKS[:, ::8]
    fine = (torch.arange(1025) * (STEP // 64)).expand(5, -1)
    path = _noise(STEP // 64)
    exact = integrate(sde, start, fine, path, "heun", saved=[0, 512, 1024]).states
    method = "milstein" if calculus == "ito" else "heun"
    got = torchsde_bridge.integrate(sde, start, few, path, method, tolerance=1e-3).states
    assert float((got - exact).abs().max()) < 0.02


@pytest.mark.parametrize("method", ["milstein", "srk", "heun"])
def test_clips_of_different_times_are_solved_together(method):
    """In one call, and on the grids that our own solvers take."""
    sde = _sde("ito", additive=method == "srk")
    start = torch.full((5, 3), 0.5, dtype=torch.float64)
    ticks = (STEP * torch.tensor([0, 1, 2, 4, 5])).repeat(5, 1)
    ticks[1] = STEP * torch.tensor([2, 3, 5, 5, 5])
    ticks[2] += 3 * STEP
    mine = integrate(sde, start, ticks, _noise(), method)
    other = torchsde_bridge.integrate(sde, start, ticks, _noise(), method)
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_uneven_steps_and_padding_are_our_own():
    sde, start = _sde("ito"), torch.full((5, 3), 0.5, dtype=torch.float64)
    ticks = torch.tensor([0, STEP, 4 * STEP, 5 * STEP, 5 * STEP]).expand(5, -1)
    mine = integrate(sde, start, ticks, _noise(), "milstein", [2, 4])
    other = torchsde_bridge.integrate(sde, start, ticks, _noise(), "milstein", [2, 4])
    torch.testing.assert_close(mine.states, other.states, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mine.kl, other.kl, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["reversible_heun", "midpoint"])
def test_adjoint_gradients_are_those_of_backpropagation(method):
    """To rounding for reversible Heun, as the steps shrink for the others."""
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    sde = SDE(
        lambda _t, z: scale * (z - z**3),
        lambda _t, z: 0.4 + 0 * z,
        lambda _t, z: scale * z,
        calculus="stratonovich",
        noise="additive",
        tensors=(scale,),
    )
    start = torch.full((5, 3), 0.5, dtype=torch.float64, requires_grad=True)
    ticks = (torch.arange(65) * (STEP // 4)).expand(5, -1)
    gradients = []
    for adjoint in (False, True):
        arguments = sde, start, ticks, _noise(STEP // 4), method, [64]
        path = torchsde_bridge.integrate(*arguments, adjoint=adjoint)
        loss = path.states.square().sum() + path.kl.sum()
        gradients.append(torch.autograd.grad(loss, [start, scale]))
    bound = 1e-8 if method == "reversible_heun" else 2e-2
    torch.testing.assert_close(*gradients, rtol=bound, atol=bound)
