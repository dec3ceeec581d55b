"""Each scheme has the order and the calculus that it declares."""

import json
import math
from pathlib import Path

import pytest
import torch

from sdevid.errors import UserError
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.solvers import SOLVERS, fitting
from sdevid.sde.stepwise import integrate
from sdevid.types import TICKS_PER_UNIT

ORACLES = json.loads((Path(__file__).parent / "oracles.json").read_text())
CLIPS, COMPONENTS = 4, 5_000
FINEST = TICKS_PER_UNIT // 256
DIAGONAL = [name for name, solver in SOLVERS.items() if "diagonal" in solver.strong_order]


def _noise() -> Brownian:
    return Brownian(11, torch.arange(CLIPS), (COMPONENTS,), FINEST)


def _at_one_second(sde: SDE, x0: float, solver: str, steps: int) -> torch.Tensor:
    ticks = (torch.arange(steps + 1) * (TICKS_PER_UNIT // steps)).expand(CLIPS, -1)
    start = torch.full((CLIPS, COMPONENTS), x0, dtype=torch.float64)
    return integrate(sde, start, ticks, _noise(), solver, saved=[steps]).states[:, 0]


def _w() -> torch.Tensor:
    """W at one second."""
    return _noise().increments(torch.tensor([[0, TICKS_PER_UNIT]]).expand(CLIPS, -1))[:, 0].double()


def _gbm() -> tuple[SDE, float, torch.Tensor]:
    p = ORACLES["gbm"]["params"]
    sde = SDE(lambda _t, z: p["mu"] * z, lambda _t, z: p["sigma"] * z)
    exact = p["x0"] * torch.exp(p["mu"] - p["sigma"] ** 2 / 2 + p["sigma"] * _w())
    return sde, p["x0"], exact


def _slope(steps: list[int], errors: list[float]) -> float:
    x, y = torch.tensor(steps).log(), torch.tensor(errors).log()
    return float(-torch.cov(torch.stack([x, y]))[0, 1] / x.var())


@pytest.mark.parametrize(
    ("solver", "column"), [("euler_maruyama", "euler"), ("milstein", "milstein")]
)
def test_errors_on_gbm_are_the_exact_ones(solver, column):
    sde, x0, exact = _gbm()
    for row in ORACLES["gbm"]["per_dt"][:6:2]:
        x = _at_one_second(sde, x0, solver, round(1 / row["dt"]))
        squared = (x - exact).square().flatten()
        error = float(squared.std()) / math.sqrt(len(squared))
        assert abs(float(squared.mean()) - row[column]["strong_l2"] ** 2) < 4 * error
        for power, name in ((1, "mean"), (2, "second")):
            moment = (x**power).flatten()
            error = float(moment.std()) / math.sqrt(len(moment))
            assert abs(float(moment.mean()) - row[column][name]) < 4 * error


@pytest.mark.parametrize("solver", DIAGONAL)
def test_strong_order_with_diagonal_noise(solver):
    sde, x0, exact = _gbm()
    steps = [8, 32, 128]
    errors = [
        float((_at_one_second(sde, x0, solver, n) - exact).square().mean().sqrt()) for n in steps
    ]
    assert _slope(steps, errors) > SOLVERS[solver].strong_order["diagonal"] - 0.1
    assert errors[-1] < 0.04


@pytest.mark.parametrize("solver", SOLVERS)
def test_strong_order_with_additive_noise(solver):
    """A double well against the same path at 256 steps of srk."""
    sde = SDE(lambda _t, z: z - z**3, lambda _t, z: torch.full_like(z, 0.7), noise="additive")
    exact = _at_one_second(sde, 0.5, "srk", 256)
    steps = [8, 16, 32]
    errors = [
        float((_at_one_second(sde, 0.5, solver, n) - exact).square().mean().sqrt()) for n in steps
    ]
    assert _slope(steps, errors) > SOLVERS[solver].strong_order["additive"] - 0.1


def test_weak_order_of_euler_on_ou_is_one():
    p = ORACLES["ou"]["params"]
    sde = SDE(
        lambda _t, z: p["theta"] * (p["m"] - z),
        lambda _t, z: torch.full_like(z, p["sigma"]),
        noise="additive",
    )
    for row in ORACLES["ou"]["per_dt"][:5:2]:
        x = _at_one_second(sde, p["x0"], "euler_maruyama", round(1 / row["dt"])).flatten()
        n = len(x)
        assert abs(float(x.mean()) - row["mean"]) < 4 * math.sqrt(row["var"] / n)
        assert abs(float(x.var()) - row["var"]) < 4 * row["var"] * math.sqrt(2 / n)


@pytest.mark.parametrize("solver", ["heun", "midpoint", "srk", "reversible_heun"])
def test_weak_order_on_ou(solver):
    """The mean's error, without sampling error: noise of nearly no size."""
    p = ORACLES["ou"]["params"]
    sde = SDE(
        lambda _t, z: p["theta"] * (p["m"] - z),
        lambda _t, z: torch.full_like(z, 1e-9),
        noise="additive",
    )
    exact = p["m"] + (p["x0"] - p["m"]) * math.exp(-p["theta"])
    steps = [8, 16, 32]
    errors = [float((_at_one_second(sde, p["x0"], solver, n) - exact).mean().abs()) for n in steps]
    assert _slope(steps, errors) > 1.9


@pytest.mark.parametrize("solver", DIAGONAL)
def test_drift_is_changed_to_the_solvers_calculus(solver):
    """GBM written in Stratonovich's calculus is the same process, by every solver."""
    sde, x0, exact = _gbm()
    other = sde.written_in("stratonovich")
    torch.testing.assert_close(
        other.drift(torch.zeros(1, 1), torch.full((1, 1), 2.0)),
        torch.full((1, 1), (0.7 - 0.5 * 0.25) * 2.0),
    )
    x = _at_one_second(other, x0, solver, 64)
    assert float((x - exact).square().mean().sqrt()) < 0.06
    back = other.written_in("ito").drift(torch.zeros(1, 1), torch.full((1, 1), 2.0))
    torch.testing.assert_close(back, torch.full((1, 1), 1.4))


def test_solver_that_does_not_fit_is_refused():
    sde = _gbm()[0]
    with pytest.raises(UserError, match="srk takes additive noise, but the SDE's is diagonal"):
        fitting("srk", sde)
    with pytest.raises(UserError, match="written in the ito sense"):
        fitting("heun", sde, convert=False)
    with pytest.raises(UserError, match="there are euler_maruyama"):
        fitting("rk4", sde)


@pytest.mark.parametrize(
    ("diffusion", "message"),
    [
        (lambda _t, z: torch.zeros_like(z), "diffusion is 0 somewhere"),
        (lambda _t, z: z * float("nan"), "diffusion holds a NaN"),
        (lambda _t, _z: torch.ones(2, 3, 3), "non-diagonal noise is out of scope"),
        (lambda _t, _z: torch.ones(2, 5), "does not broadcast"),
    ],
)
def test_bad_diffusion_is_refused(diffusion, message):
    ticks = torch.tensor([[0, 100]]).expand(2, -1)
    noise = Brownian(1, torch.arange(2), (3,), 100)
    with pytest.raises(UserError, match=message):
        integrate(SDE(lambda _t, z: -z, diffusion), torch.ones(2, 3), ticks, noise)


def test_state_in_16_bits_is_refused():
    ticks = torch.tensor([[0, 100]])
    start = torch.ones(1, 3, dtype=torch.bfloat16)
    with pytest.raises(UserError, match="wrong law"):
        integrate(_gbm()[0], start, ticks, Brownian(1, torch.arange(1), (3,), 100))
