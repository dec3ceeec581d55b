"""Heun's fused steps against their references and against the solvers."""

import pytest
import torch
from sdevid_kernels.em_step import em_step, increment
from sdevid_kernels.heun_step import Rates, heun_step
from sdevid_kernels.reversible_heun_step import reversible_heun_step
from torch import Tensor

from sdevid.sde import solvers
from sdevid.sde.equation import SDE

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them
SHAPE = (3, 5, 60)
DT = torch.tensor([0.0, 0.05, 0.1], device=DEVICE)
KEY = (77, torch.arange(3, device=DEVICE), torch.arange(3, device=DEVICE) + 2)


def _rates(at: Tensor, control: bool) -> Rates:
    return Rates(-at, 0.4 + 0.1 * torch.sin(at), torch.cos(at) if control else None)


def _sde(control: bool) -> SDE:
    return SDE(
        lambda _t, z: -z,
        lambda _t, z: 0.4 + 0.1 * torch.sin(z),
        (lambda _t, z: torch.cos(z)) if control else None,
        calculus="stratonovich",
    )


def _interval() -> solvers.Interval:
    dw = increment(torch.empty(SHAPE, device=DEVICE), DT, KEY)
    return solvers.Interval(torch.zeros(3, 1, 1, device=DEVICE), DT[:, None, None], dw)


def _start() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(SHAPE, device=DEVICE).requires_grad_() for _ in range(2)]


def _same(got: list[Tensor], want: list[Tensor], leaves: list[Tensor]) -> None:
    """Equal values and gradients."""
    pairs = []
    for values in (got, want):
        loss = sum((value.flatten() ** 2).sum() * (k + 1) for k, value in enumerate(values))
        pairs.append([*values, *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*pairs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("setting", ["triton", "reference"])
def test_heun_is_the_solvers(setting, control):
    z, _ = _start()
    first = _rates(z, control)
    guess, _ = em_step(z, first.drift, first.diffusion, DT, KEY, first.control, setting=setting)
    moved, kl = heun_step(z, first, _rates(guess, control), DT, KEY, setting)
    want = solvers.heun(_sde(control), z, _interval())
    _same([moved, kl], list(want), [z])


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("setting", ["triton", "reference"])
def test_reversible_heun_is_the_solvers(setting, control):
    z, companion = _start()
    first = _rates(companion, control)
    got = reversible_heun_step(
        z, companion, first, lambda at: _rates(at, control), DT, KEY, setting
    )
    sde, interval = _sde(control), _interval()
    carried = solvers.Carried(z, companion, sde.rates(interval.t, companion))
    (after, moved, rates), spent = solvers.reversible_heun(sde, carried, interval)
    want = [after, moved, rates.diffusion, spent.energy]
    _same([got[0], got[1], got[2].diffusion, got[3]], want, [z, companion])


def test_one_control_alone_is_refused():
    z, _ = _start()
    with pytest.raises(ValueError, match="one end has a control"):
        heun_step(z, _rates(z, True), _rates(z, False), DT, KEY)
