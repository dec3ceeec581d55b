"""Path KL against closed forms, and the chain's bound against an exact likelihood."""

import json
import math
from pathlib import Path

import pytest
import torch

from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian, Stream, normal
from sdevid.sde.path_kl import log_ratio, width_kl
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain, integrate
from sdevid.types import TICKS_PER_UNIT

ORACLES = json.loads((Path(__file__).parent / "oracles.json").read_text())
PATHS = 20_000


def _ou_kl(calculus: str, solver: str, steps: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Each path's KL of two OU processes of one diffusion, and the parameters."""
    p = ORACLES["kl_ou"]["params"]
    names = ("theta_q", "theta_p", "sigma")
    theta_q, theta_p, sigma = values = [
        torch.tensor(p[name], dtype=torch.float64, requires_grad=True) for name in names
    ]
    sde = SDE(
        lambda _t, z: -theta_p * z,
        lambda _t, z: sigma.expand_as(z),
        lambda _t, z: (theta_p - theta_q) * z / sigma,
        calculus=calculus,
        noise="additive",
    )
    serial = torch.arange(PATHS)
    step = round(p["T"] * TICKS_PER_UNIT / steps)
    noise = Brownian(5, serial, (1,), step)
    start = p["m0"] + math.sqrt(p["v0"]) * normal(5, serial, Stream.INITIAL, (1,)).double()
    ticks = (torch.arange(steps + 1) * step).expand(PATHS, -1)
    return integrate(sde, start, ticks, noise, solver, [steps]).kl, values


def _close(samples: torch.Tensor, exact: float, bias: float = 0.0) -> bool:
    return abs(float(samples.mean()) - exact) < 4 * float(samples.std()) / math.sqrt(PATHS) + bias


@pytest.mark.parametrize("row", ORACLES["kl_ou"]["euler"][::2], ids=lambda row: str(row["dt"]))
def test_kl_of_two_ou_chains_and_its_gradient(row):
    kl, values = _ou_kl("ito", "euler_maruyama", round(2 / row["dt"]))
    assert _close(kl.detach(), row["kl"])
    for got, exact in zip(torch.autograd.grad(kl.mean(), values), row["gradient"], strict=True):
        assert float(got) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(
    ("calculus", "solver", "steps", "bias"),
    [
        ("stratonovich", "heun", 32, 2e-3),
        ("ito", "srk", 32, 2e-3),
        ("stratonovich", "midpoint", 128, 5e-3),
        ("stratonovich", "reversible_heun", 128, 5e-3),
    ],
)
def test_kl_in_continuous_time(calculus, solver, steps, bias):
    kl, values = _ou_kl(calculus, solver, steps)
    oracle = ORACLES["kl_ou"]
    assert _close(kl.detach(), oracle["kl"], bias)
    for got, exact in zip(torch.autograd.grad(kl.mean(), values), oracle["gradient"], strict=True):
        assert float(got) == pytest.approx(exact, rel=0.03)


class _LinearPosterior(torch.nn.Module):
    """The linear model's exact posterior is of this kind: u and log r a step, linear in z."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(steps))
        self.level = torch.nn.Parameter(torch.zeros(steps))
        self.width = torch.nn.Parameter(torch.full((steps,), -0.01))
        self.start = torch.nn.Parameter(torch.tensor([0.0, 0.0]))  # mean, log sd


def _lgssm_bound(model: _LinearPosterior, sub: int) -> torch.Tensor:
    """The chain's bound of a linear-Gaussian model, exact: points +-sqrt(n) e_i integrate what is
    quadratic in the noise."""
    p = ORACLES["lgssm"]["params"]
    steps = p["frames"] * sub
    points = math.sqrt(steps + 1) * torch.eye(steps + 1)
    points = torch.cat([points, -points]).double()
    d = p["T"] / steps
    mean, log_sd = model.start
    start = mean + log_sd.exp() * points[:, :1]
    ticks = (torch.arange(steps + 1) * round(d * TICKS_PER_UNIT)).expand(len(points), -1)
    one = torch.ones(1, 1, dtype=torch.float64)

    def coefficients(z: torch.Tensor, k: int) -> Step:
        control = model.slope[k] * z + model.level[k]
        return Step(-p["theta"] * z, p["sigma"] * one, control, model.width[k].exp() * one)

    path = chain(start, ticks, math.sqrt(d) * points[:, 1:, None], coefficients)
    observed = path.states[:, sub::sub, 0]
    score = torch.distributions.Normal(observed, p["r"])
    prior = torch.distributions.Normal(p["m0"], math.sqrt(p["v0"]))
    posterior = torch.distributions.Normal(mean, log_sd.exp())
    likelihood = score.log_prob(torch.tensor(p["obs"], dtype=torch.float64)).sum(1).mean()
    return likelihood - path.kl.mean() - torch.distributions.kl_divergence(posterior, prior)


@pytest.mark.parametrize("sub", [1, 2])
def test_linear_model_reaches_the_exact_likelihood(sub):
    model = _LinearPosterior(ORACLES["lgssm"]["params"]["frames"] * sub).double()
    search = torch.optim.LBFGS(model.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = -_lgssm_bound(model, sub)
        value.backward()
        return value

    search.step(loss)
    exact = ORACLES["lgssm"]["loglik_euler"][str(sub)]
    reached = float(_lgssm_bound(model, sub).detach())
    assert exact - 1e-3 < reached < exact + 1e-6


def test_one_gaussian_step_has_the_ratio_of_its_densities():
    """p = N(h d, g^2 d) over q = N((h + g u) d, r^2 g^2 d), at a draw of q."""
    d, h, g, u, r, eps = 0.1, 0.7, 0.8, 1.9, 0.6, -0.4
    z = (h + g * u) * d + r * g * math.sqrt(d) * eps
    p = torch.distributions.Normal(h * d, g * math.sqrt(d))
    q = torch.distributions.Normal((h + g * u) * d, r * g * math.sqrt(d))
    want = p.log_prob(torch.tensor(z)) - q.log_prob(torch.tensor(z))
    one = [torch.full((1, 1), value) for value in (h, g, u, r)]
    dw = torch.full((1, 1, 1), math.sqrt(d) * eps)
    got = log_ratio([Step(*one)], dw, torch.full((1, 1), d))
    torch.testing.assert_close(got[0], want, rtol=1e-5, atol=1e-6)
    none = log_ratio([Step(*one)], torch.zeros(1, 1, 1), torch.zeros(1, 1))
    assert none.item() == 0  # a step between equal ticks


def test_width_that_underflows_has_a_finite_kl_and_none_in_a_step_of_no_time():
    width = torch.tensor([[[0.0], [0.0]], [[0.5], [0.5]]], requires_grad=True)
    dt = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    kl = width_kl(width, dt)
    kl.sum().backward()
    assert kl.tolist() == pytest.approx([-0.5 + 9 * math.log(10), -0.375 + math.log(2)])
    assert width.grad.isfinite().all()
