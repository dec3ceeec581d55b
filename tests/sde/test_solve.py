"""Which solver takes a problem, why not another, and that they agree."""

from dataclasses import replace

import pytest
import torch
from sdevid_kernels.em_trajectory.reference import Network, Posterior, Reading

from sdevid.errors import UserError
from sdevid.sde import fused, solve, stepwise, torchsde_bridge
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Problem, SiluForm, Step
from sdevid.types import TICKS_PER_UNIT

BATCH, SIZE, HIDDEN, STEPS, CELL = 3, 2, 5, 4, 4800


def silu_problem(**changes) -> Problem:
    """A controlled chain given in every form."""
    torch.manual_seed(0)
    drift, control = (
        Network(torch.randn(HIDDEN, SIZE), (), (torch.randn(outs, HIDDEN), torch.randn(outs)))
        for outs in (SIZE, 2 * SIZE)
    )
    shift, g = torch.randn(BATCH, HIDDEN), torch.full((BATCH, SIZE), 0.5)
    shifts, reading = torch.randn(1, BATCH, HIDDEN), Reading(bound=3.0, width=True)
    ticks = (torch.arange(STEPS + 1) * CELL).expand(BATCH, -1)

    def step(z):
        h = drift(z, shift)
        return Step(h, g, *reading(control(z, shifts[0]), h, g))

    options = {
        "start": torch.randn(BATCH, SIZE),
        "ticks": ticks,
        "noise": Brownian(1, torch.arange(BATCH), (SIZE,), CELL),
        "coefficients": lambda z, _: step(z),
        "saved": [0, 2, 4],
        "silu": SiluForm(drift, shift, g, Posterior(control, shifts, reading)),
        "fields": SDE(
            lambda _, z: step(z).drift,
            lambda _, z: step(z).diffusion,
            lambda _, z: step(z).control,
            noise="additive",
        ),
    }
    return Problem(**options | changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "fused"),
        ({"silu": "its layers are convolutions"}, "stepwise"),
        ({"kernels": "reference"}, "stepwise"),
        ({"gradient": "checkpoint"}, "stepwise"),
        ({"scheme": "heun"}, "stepwise"),
        ({"scheme": "torchsde/srk"}, "torchsde"),
    ],
    ids=str,
)
def test_first_solver_that_can_takes_the_problem(changes, name):
    choice = solve.choose(silu_problem(**changes))
    assert name == choice.solver.NAME
    assert all(f"not {other}: {reason}" in str(choice) for other, reason in choice.refused.items())
    expected = [each.NAME for each in solve.SOLVERS]
    assert list(choice.refused) == expected[: expected.index(name)]


def test_choice_tells_the_bound_and_the_order():
    assert "the chain's bound" in str(solve.choose(silu_problem()))
    summary = str(solve.choose(silu_problem(scheme="heun", gradient="checkpoint")))
    assert "heun of strong order 1, Girsanov's bound, gradient checkpoint" in summary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "rk4"}, "rk4 is not one of euler_maruyama"),
        ({"scheme": "heun", "order": 2}, "heun takes no state of second order"),
        ({"scheme": "heun", "fields": "no field"}, "stepwise: no field"),
        ({"gradient": "reversible"}, "reversible undoes reversible_heun"),
        ({"scheme": "torchsde/euler", "gradient": "checkpoint"}, "no checkpoints"),
        ({"scheme": "torchsde/srk", "noise": torch.zeros(BATCH, STEPS, SIZE)}, "increments"),
        ({"scheme": "torchsde/srk", "tolerance": 1e-3}, "adaptive steps are for sampling"),
        ({"kernels": "triton"}, "Triton needs CUDA"),
    ],
    ids=str,
)
def test_problem_that_no_solver_takes_is_refused_with_reasons(changes, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match=message):
        solve.solve(silu_problem(**changes))


def test_srk_of_noise_that_depends_on_the_state_is_refused():
    fields = SDE(lambda _, z: -z, lambda _, z: 1 + z.square(), noise="diagonal")
    with pytest.raises(UserError, match="srk takes no diagonal noise"):
        solve.solve(silu_problem(scheme="srk", fields=fields))


def test_solvers_agree_on_the_chain():
    paths = [each.solve(silu_problem()) for each in (fused, stepwise)]
    torch.testing.assert_close(*paths, rtol=1e-4, atol=1e-5)


def test_torchsde_agrees_on_the_scheme():
    problem = silu_problem(start=torch.randn(BATCH, SIZE), scheme="heun")
    ours, theirs = solve.solve(problem), solve.solve(replace(problem, scheme="torchsde/heun"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert ours.kl.min() > 0


@pytest.mark.slow
def test_adaptive_torchsde_comes_near_small_steps():
    with torch.no_grad():
        problem = silu_problem(scheme="torchsde/srk", tolerance=1e-5)
        adaptive = torchsde_bridge.solve(problem)
        fine = (torch.arange(STEPS * 64 + 1) * (CELL // 64)).expand(BATCH, -1)
        exact = stepwise.integrate(
            problem.fields, problem.start, fine, problem.noise, "heun", [0, 128, 256]
        )
    assert (adaptive.states - exact.states).abs().max() < 2e-2


@pytest.mark.parametrize("scheme", ["euler_maruyama", "milstein", "reversible_heun"])
def test_checkpoint_gives_the_gradients_of_backpropagation(scheme):
    gradients = []
    for gradient in ("backprop", "checkpoint"):
        start = torch.ones(BATCH, SIZE, requires_grad=True)
        path = stepwise.solve(silu_problem(start=start, scheme=scheme, gradient=gradient))
        loss = path.states.square().sum() + path.kl.sum()
        gradients.append(torch.autograd.grad(loss, start)[0])
    torch.testing.assert_close(*gradients)


def test_checkpoint_of_a_second_order_state_is_the_chain():
    results = []
    for gradient in ("backprop", "checkpoint"):
        start = torch.ones(BATCH, 2 * SIZE, requires_grad=True)

        def coefficients(z, k):
            q, v = z.chunk(2, 1)
            return Step(-q - 0.1 * v, torch.full_like(v, 0.3), torch.sin(v + k))

        problem = silu_problem(
            start=start, coefficients=coefficients, order=2, gradient=gradient, fields="none"
        )
        path = solve.solve(problem)
        results.append([*path, torch.autograd.grad(path.states.square().sum(), start)[0]])
    torch.testing.assert_close(*results)


def test_field_times_are_those_of_the_grid():
    times = []
    fields = SDE(lambda t, z: times.append(t.flatten()[0].item()) or -z, lambda _, z: 0 * z + 1)
    stepwise.solve(silu_problem(scheme="milstein", fields=fields))
    assert max(times) == pytest.approx((STEPS - 1) * CELL / TICKS_PER_UNIT)
