"""The whole chain by hand and fused, against autograd through its reference."""

import pytest
import torch
from sdevid_kernels.em_trajectory import by_hand, reference
from sdevid_kernels.em_trajectory.reference import Network, Posterior
from torch import Tensor


def _network(inputs: int, hidden: int, depth: int, outputs: int, like: dict) -> Network:
    def weight(out: int, into: int) -> Tensor:
        return (torch.randn(out, into, **like) / into**0.5).requires_grad_()

    def bias(out: int) -> Tensor:
        return (0.1 * torch.randn(out, **like)).requires_grad_()

    inner = tuple((weight(hidden, hidden), bias(hidden)) for _ in range(depth - 1))
    return Network(weight(hidden, inputs), inner, (weight(outputs, hidden), bias(outputs)))


def _case(
    depth: int = 1,
    control: bool = True,
    bound: float | None = None,
    width: bool = False,
    rows: int = 5,
    size: int = 3,
    hidden: int = 7,
    steps: int = 4,
    dtype: torch.dtype = torch.float64,
    shared: bool = False,
) -> dict:
    torch.manual_seed(1)
    like = {"dtype": dtype}
    z = torch.randn(rows, size, **like).requires_grad_()
    dt = 0.05 * torch.arange(rows, **like).expand(steps, -1)  # the first row does not move
    posterior = None
    if control:
        network = _network(size, hidden, depth, size * (2 if width else 1), like)
        shifts = torch.randn(steps, rows, hidden, **like).requires_grad_()
        posterior = Posterior(network, shifts, bound, width)
    return {
        "z": z,
        "drift": _network(size, hidden, depth, size, like),
        "drift_shift": torch.randn(rows, hidden, **like).requires_grad_(),
        "diffusion": (0.2 + torch.rand(1 if shared else rows, size, **like)).requires_grad_(),
        "posterior": posterior,
        "dt": dt,
        "dw": torch.randn(steps, rows, size, **like) * dt.sqrt()[..., None],
    }


def _leaves(case: dict) -> list[Tensor]:
    def of(network: Network) -> list[Tensor]:
        return [network.first, *(x for pair in (*network.hidden, network.last) for x in pair)]

    leaves = [case["z"], case["drift_shift"], case["diffusion"], *of(case["drift"])]
    if case["posterior"] is not None:
        leaves += [case["posterior"].shifts, *of(case["posterior"].network)]
    return leaves


def _values_and_gradients(solve, case: dict) -> list[Tensor]:
    made = solve(**case)
    scale = torch.arange(1, case["z"].shape[0] + 1, dtype=case["z"].dtype)
    loss = made.states.square().sum() + (made.energy * scale + 2 * made.width_kl * scale).sum()
    return [*made, *torch.autograd.grad(loss, _leaves(case))]


CASES = [
    {},
    {"depth": 2, "bound": 2.0, "width": True},
    {"depth": 3, "width": True, "shared": True},
    {"bound": 1.0},
    {"control": False, "depth": 2},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_by_hand_agrees_with_autograd_in_float64(options):
    case = _case(**options)
    got = _values_and_gradients(by_hand.em_trajectory, case)
    want = _values_and_gradients(reference.em_trajectory, case)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
