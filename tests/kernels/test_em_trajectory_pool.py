"""Segments are used again, and no graph sees another's."""

from concurrent.futures import ThreadPoolExecutor

import torch
from sdevid_kernels.em_trajectory import em_trajectory, pool
from sdevid_kernels.em_trajectory.reference import Network, Posterior
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS, SIZE, HIDDEN, STEPS = 4, 3, 8, 5


def _network() -> Network:
    shapes = (HIDDEN, SIZE), (SIZE, HIDDEN), (SIZE,)
    first, last, bias = (torch.randn(shape).requires_grad_() for shape in shapes)
    return Network(first, (), (last, bias))


def _case(seed: int) -> tuple[dict, list[Tensor]]:
    torch.manual_seed(seed)
    drift, control = _network(), _network()
    case = {
        "z": torch.randn(ROWS, SIZE, requires_grad=True),
        "drift": drift,
        "drift_shift": torch.randn(ROWS, HIDDEN),
        "diffusion": torch.ones(1, SIZE),
        "posterior": Posterior(control, torch.randn(STEPS, ROWS, HIDDEN)),
        "dt": torch.full((STEPS, ROWS), 0.1),
        "noise": torch.randn(STEPS, ROWS, SIZE),
    }
    return case, [case["z"], *drift.last, drift.first, *control.last, control.first]


def _loss(case: dict, setting: str = "auto") -> Tensor:
    made = em_trajectory(**case, setting=setting)
    return made.states.square().sum() + made.energy.sum()


def _gradients(seed: int, setting: str = "auto") -> list[Tensor]:
    return _gradients_of(_case(seed), setting)


def _gradients_of(made: tuple[dict, list[Tensor]], setting: str = "auto") -> list[Tensor]:
    case, leaves = made
    return list(torch.autograd.grad(_loss(case, setting), leaves))


def test_live_graphs_do_not_share_and_a_graph_may_be_walked_twice():
    cases = [_case(seed) for seed in range(3)]
    losses = [_loss(case) for case, _ in cases]
    _loss(_case(9)[0])  # dropped
    for seed in (1, 0, 2, 1):
        got = torch.autograd.grad(losses[seed], cases[seed][1], retain_graph=True)
        torch.testing.assert_close(list(got), _gradients(seed, "reference"), rtol=1e-4, atol=1e-5)


def test_threads_and_checkpoints_do_not_share():
    cases = [_case(seed) for seed in range(4)]  # here: threads share torch's generator
    wanted = [_gradients_of(case, "reference") for case in cases]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(_gradients_of, cases * 4))
    for got, want in zip(made, wanted * 4, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    case, leaves = _case(5)
    loss = checkpoint(_loss, case, use_reentrant=False)
    got = list(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(got, _gradients(5, "reference"), rtol=1e-4, atol=1e-5)


def test_a_segment_is_used_again_and_idle_ones_are_bounded(monkeypatch):
    pool._idle.clear()
    for _ in range(3):
        _gradients(0)
    assert len(pool._idle) == 1
    assert not hasattr(pool._idle[0], "inputs")  # holds nobody's tensors
    monkeypatch.setattr(pool, "HELD", 0)
    _gradients(0)
    assert not pool._idle
