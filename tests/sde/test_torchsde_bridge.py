"""Our solvers beside torchsde's on one Brownian path."""

import pytest
import torch

from sdevid.errors import UserError
from sdevid.sde import torchsde_bridge
from sdevid.sde.equation import SDE
from sdevid.sde.integrate import solve
from sdevid.sde.noise import Brownian
from sdevid.types import TICKS_PER_SECOND

STEP = TICKS_PER_SECOND // 16
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
    mine = solve(sde, start, TICKS, _noise(), ours).states
    step = STEP / TICKS_PER_SECOND
    other = torchsde_bridge.integrate(sde, start, TICKS, _noise(), theirs, dt=step)
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_adaptive_steps_follow_the_same_path(calculus):
    sde, start = _sde(calculus), torch.full((5, 3), 0.5)
    few = TICKS[:, ::8]
    fine = (torch.arange(1025) * (STEP // 64)).expand(5, -1)
    path = _noise(STEP // 64)
    exact = solve(sde, start, fine, path, "heun", save=[0, 512, 1024]).states
    got = torchsde_bridge.sample_adaptively(sde, start, few, path)
    assert float((got - exact).abs().max()) < 0.02


def test_different_time_grids_are_refused():
    ticks = torch.stack([TICKS[0], TICKS[0] + 1])
    with pytest.raises(UserError, match="one time grid for a batch"):
        torchsde_bridge.integrate(_sde("ito"), torch.ones(2, 3), ticks, _noise())
