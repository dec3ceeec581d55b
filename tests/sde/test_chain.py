"""The Euler-Maruyama chain and its KL."""

import pytest
import torch

from sdevid.errors import UserError
from sdevid.sde.noise import Brownian
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import TICKS_PER_UNIT, units


def _solve(batch: int = 3, steps: int = 5, repeat_last: int = 0) -> tuple:
    ticks = (torch.arange(steps + 1) * 4800).expand(batch, -1)
    ticks = torch.cat([ticks, ticks[:, -1:].expand(-1, repeat_last)], 1)
    noise = Brownian(3, torch.arange(batch), (2,), 4800)
    start = torch.ones(batch, 2)

    def coefficients(z: torch.Tensor, k: int) -> Step:
        return Step(-z, 0.5 + 0.1 * z.square(), torch.sin(z + k), torch.sigmoid(z + 2))

    return chain(start, ticks, noise, coefficients), noise.increments(ticks), units(ticks.diff())


def test_chain_is_the_recursion_with_its_kl():
    path, dw, dt = _solve()
    z, kl = torch.ones(3, 2), torch.zeros(3)
    for k in range(5):
        g, u, r = 0.5 + 0.1 * z**2, torch.sin(z + k), torch.sigmoid(z + 2)
        torch.testing.assert_close(path.states[:, k], z)
        d = dt[:, k, None]
        kl += (0.5 * u**2 * d + 0.5 * (r**2 - 1) - r.log()).sum(1)
        z = z + (-z + g * u) * d + r * g * dw[:, k]
    torch.testing.assert_close(path.states[:, 5], z)
    torch.testing.assert_close(path.kl, kl)
    assert bool((path.control_energy < path.kl).all())


def test_padding_with_equal_ticks_changes_nothing():
    plain, padded = _solve()[0], _solve(repeat_last=3)[0]
    torch.testing.assert_close(padded.states[:, -1], plain.states[:, -1], rtol=0, atol=0)
    torch.testing.assert_close(padded.kl, plain.kl)


def test_chain_kl_is_the_kl_of_gaussian_transitions():
    h, g, u, r, d = 0.3, 0.7, -1.1, 0.6, 4800 / TICKS_PER_UNIT
    prior = torch.distributions.Normal(1 + h * d, g * d**0.5)
    posterior = torch.distributions.Normal(1 + (h + g * u) * d, r * g * d**0.5)
    one = torch.ones(1, 1)
    step = Step(h * one, g * one, u * one, r * one)
    path = chain(one, torch.tensor([[0, 4800]]), torch.zeros(1, 1, 1), lambda *_: step)
    torch.testing.assert_close(path.kl[0], torch.distributions.kl_divergence(posterior, prior))


@pytest.mark.parametrize(
    ("ticks", "dw", "step", "message"),
    [
        ([[9, 3]], (1, 1, 2), Step(torch.ones(1, 2), torch.ones(1, 2)), "ticks fall by 6"),
        ([[0, 3]], (1, 2, 2), Step(torch.ones(1, 2), torch.ones(1, 2)), "noise has shape"),
        ([[0, 3]], (1, 1, 2), Step(torch.ones(3, 2), torch.ones(1, 2)), "drift has shape"),
        ([[0, 3]], (1, 1, 2), Step(torch.ones(1, 2), torch.zeros(2)), "diffusion is 0"),
        ([[0, 3]], (1, 1, 2), Step(*torch.ones(2, 1, 2), torch.ones(3)), "control has shape"),
        ([[0, 3]], (1, 1, 2), Step(*torch.ones(3, 1, 2), torch.ones(3)), "width has shape"),
    ],
)
def test_chain_of_misfit_arguments_is_refused(ticks, dw, step, message):
    with pytest.raises(UserError, match=message):
        chain(torch.ones(1, 2), torch.tensor(ticks), torch.zeros(dw), lambda *_: step)


def test_lost_clip_comes_back_in_nans_and_alone():
    """The ranks of a training then agree on what to do; an exception on one would hang the rest."""
    start, ticks = torch.ones(2, 3), torch.tensor([[0, 100, 200]]).expand(2, -1)
    lost = torch.tensor([[1.0], [torch.nan]])
    path = chain(
        start, ticks, torch.zeros(2, 2, 3), lambda z, _: Step(-z, lost.expand_as(z), lost * z)
    )
    assert path.states[0].isfinite().all()
    assert path.kl.isnan().tolist() == [False, True]
    assert path.states[1, 1:].isnan().all()


@pytest.mark.parametrize("cell", [4800, 5000])
@pytest.mark.parametrize("last", [True, False])
def test_fused_steps_give_the_same_chain_and_gradients(cell, last):
    """Whole cells, whose noise the kernel draws, and steps across cells."""
    ticks = (torch.arange(6) * 4800).expand(3, -1)
    noise = Brownian(3, torch.arange(3), (2,), cell)
    results = []
    for kernels in ("reference", "triton"):
        start = torch.ones(3, 2, requires_grad=True)
        level = torch.tensor([0.4, 0.6], requires_grad=True)

        def coefficients(z: torch.Tensor, k: int, level: torch.Tensor = level) -> Step:
            control, width = (torch.sin(z + k), torch.sigmoid(z + 2)) if last else (None, None)
            return Step(-z, level, control, width)

        path = chain(start, ticks, noise, coefficients, kernels)
        loss = path.states.square().sum() + path.kl.sum()
        results.append([*path, *torch.autograd.grad(loss, [start, level])])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("without_type_checks")
def test_setting_that_is_none_is_refused():
    step = Step(torch.ones(1, 2), torch.ones(1, 2))
    arguments = torch.ones(1, 2), torch.tensor([[0, 3]]), torch.zeros(1, 1, 2), lambda *_: step
    with pytest.raises(UserError, match="kernels is 'fast'"):
        chain(*arguments, kernels="fast")
