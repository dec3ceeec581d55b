"""The chain of positions and velocities: its law, its KL, its order, its steps."""

from itertools import pairwise

import pytest
import torch

from sdevid.errors import UserError
from sdevid.sde import second_order
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import TICKS_PER_UNIT, units

STIFFNESS, FRICTION, G = 9.0, 0.5, 1.2
START = torch.tensor([0.7, -0.4], dtype=torch.float64)


def oscillator(control=None, width=None):
    """dv = (-k q - c v + g u) dt + r g dW."""

    def coefficients(z, _):
        q, v = second_order.halves(z)
        like = torch.ones_like(v)
        scaled = (None if x is None else x * like for x in (control, width))
        return Step(-STIFFNESS * q - FRICTION * v, G * like, *scaled)

    return coefficients


def linear(steps, span, coefficients):
    """A linear chain's mean path, what each unit of noise adds to it, and its KL: exactly.

    (points, 2) and (steps, points, 2), float64.
    """
    every = span * TICKS_PER_UNIT // steps * torch.arange(steps + 1)
    noise = torch.cat([torch.zeros(1, steps), torch.eye(steps)])[..., None].double()
    rows = len(noise)
    path = chain(
        START.expand(rows, 2), every.expand(rows, -1), noise, coefficients, "reference", order=2
    )
    return path.states[0], path.states[1:] - path.states[0], path.kl[0]


def test_law_comes_to_the_exact_one_at_first_order():
    """Mean by the matrix exponential; covariance by Van Loan's (1978)."""
    span = 1
    rates = torch.tensor([[0.0, 1.0], [-STIFFNESS, -FRICTION]], dtype=torch.float64)
    spread = torch.tensor([[0.0, 0.0], [0.0, G**2]], dtype=torch.float64)
    block = torch.cat([torch.cat([-rates, spread], 1), torch.cat([0 * rates, rates.T], 1)])
    transition = torch.linalg.matrix_exp(block * span)
    flow = transition[2:, 2:].T
    mean, covariance = flow @ START, flow @ transition[:2, 2:]
    errors = []
    for steps in (32, 64, 128, 256):
        path, pulses, _ = linear(steps, span, oscillator())
        last = pulses[:, -1]
        law = path[-1], last.T @ last * span / steps
        errors.append([(a - b).abs().max() for a, b in zip(law, (mean, covariance), strict=True)])
    for coarse, fine in pairwise(errors):
        for before, after in zip(coarse, fine, strict=True):
            assert 1.7 < before / after < 2.3
    assert max(errors[-1]) < 0.02


def test_kl_is_that_of_the_laws_of_whole_paths():
    """Positions alone tell a path, as each is another velocity's sum: Gaussians, jointly."""
    steps, span, width = 4, 1, 0.7
    laws = []
    for coefficients in (oscillator(torch.tensor(-1.1), torch.tensor(width)), oscillator()):
        path, pulses, kl = linear(steps, span, coefficients)
        root = pulses[:, 1:, 0].T * (span / steps) ** 0.5
        laws.append((torch.distributions.MultivariateNormal(path[1:, 0], root @ root.T), kl))
    (posterior, kl), (prior, none) = laws
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(posterior, prior))
    assert none == 0


def test_second_order_chain_has_strong_order_one():
    noise = Brownian(3, torch.arange(200), (1,), 4800)

    def coefficients(z, _):
        q, v = second_order.halves(z)
        return Step(-9 * torch.sin(q) - 0.5 * v, torch.full_like(v, G))

    def end(steps):
        ticks = TICKS_PER_UNIT // steps * torch.arange(steps + 1)
        start = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(200, 2)
        return chain(start, ticks.expand(200, -1), noise, coefficients, order=2).states[:, -1]

    best = end(1024)
    errors = [(end(steps) - best).square().mean(0).sqrt() for steps in (16, 32, 64, 128)]
    ratios = torch.stack([a / b for a, b in pairwise(errors)])
    assert ((ratios > 1.6) & (ratios < 2.6)).all()


@pytest.mark.parametrize("kernels", ["reference", "triton"])
@pytest.mark.parametrize("shape", [(4,), (4, 3, 3)])
@pytest.mark.parametrize("cell", [4800, 5000])
def test_chain_is_the_recursion_with_its_kl(kernels, shape, cell):
    torch.manual_seed(0)
    start = torch.randn(3, *shape)
    ticks = (torch.arange(6) * 4800).expand(3, -1)
    ticks = torch.cat([ticks, ticks[:, -1:]], 1)  # padded
    noise = Brownian(1, torch.arange(3), (2, *shape[1:]), cell)

    def coefficients(z, k):
        q, v = second_order.halves(z)
        return Step(-q * v, 0.5 + 0.1 * v.square(), torch.sin(q + k), torch.sigmoid(v + 2))

    path = chain(start, ticks, noise, coefficients, kernels, order=2)
    dw, wide = noise.increments(ticks), (3, *[1] * len(shape))
    (q, v), kl = second_order.halves(start), torch.zeros(3)
    for k, d in enumerate(units(ticks.diff()).float().unbind(1)):
        torch.testing.assert_close(path.states[:, k], torch.cat([q, v], 1))
        h, g, u, r = coefficients(torch.cat([q, v], 1), k)
        step = 0.5 * u**2 * d.view(wide) + (0.5 * (r**2 - 1) - r.log()) * (d > 0).view(wide)
        kl = kl + step.flatten(1).sum(1)
        v = v + (h + g * u) * d.view(wide) + r * g * dw[:, k]
        q = q + v * d.view(wide)
    torch.testing.assert_close(path.states[:, -1], torch.cat([q, v], 1))
    torch.testing.assert_close(path.states[:, -2], path.states[:, -1])
    torch.testing.assert_close(path.kl, kl)
    assert bool((path.control_energy < path.kl).all())


def test_one_step_without_control_is_the_chains():
    z, dw = torch.randn(2, 4), torch.randn(2, 1, 2)
    step = Step(torch.randn(2, 2), torch.tensor([0.5, 0.7]))
    path = chain(z, torch.tensor([[0, 4800]] * 2), dw, lambda *_: step, order=2)
    end = second_order.prior_step(z, *step[:2], 4800 / TICKS_PER_UNIT, dw[:, 0])
    torch.testing.assert_close(end, path.states[:, 1])


def test_path_of_one_point_is_its_start():
    z = torch.randn(2, 4)
    path = chain(z, torch.zeros(2, 1).long(), torch.zeros(2, 0, 2), oscillator(), order=2)
    assert torch.equal(path.states[:, 0], z)
    assert not path.kl.any()


def test_state_that_has_no_velocities_is_refused():
    with pytest.raises(UserError, match="even second axis"):
        chain(torch.ones(1, 3), torch.tensor([[0, 3]]), torch.zeros(1, 1, 1), oscillator(), order=2)
