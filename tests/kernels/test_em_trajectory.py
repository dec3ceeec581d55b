"""The whole chain by hand, against autograd through its reference."""

import pytest
import torch
from sdevid_kernels.em_trajectory import cpu, reference
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Reading
from torch import Tensor


def _network(inputs: int, hidden: int, depth: int, outputs: int, like: dict) -> Network:
    def weight(out: int, into: int) -> Tensor:
        return (torch.randn(out, into, **like) / into**0.5).requires_grad_()

    def bias(out: int) -> Tensor:
        return (0.1 * torch.randn(out, **like)).requires_grad_()

    inner = tuple((weight(hidden, hidden), bias(hidden)) for _ in range(depth - 1))
    return Network(weight(hidden, inputs), inner, (weight(outputs, hidden), bias(outputs)))


def _diffusion(rows: int, size: int, slope: bool, stratonovich: bool, like: dict):
    g = (0.2 + torch.rand(rows, size, **like)).requires_grad_()
    if not slope:
        return g
    bends = (torch.randn(rows, size, **like).requires_grad_() for _ in range(2))
    return Diffusion(g, *bends, 0.1, -0.5, stratonovich)


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
    unit: float | None = None,
    own: bool = False,
    slope: bool = False,
    stratonovich: bool = False,
    control_depth: int | None = None,
    still: bool = False,
    alike: bool = False,
    saved: tuple[int, ...] | None = None,
) -> dict:
    torch.manual_seed(1)
    like = {"dtype": dtype}
    z = torch.randn(rows, size, **like).requires_grad_()
    dt = 0.05 * torch.arange(rows, **like).expand(steps, -1)  # the first row does not move
    posterior = None
    if control:
        outputs = size * (2 if width else 1)
        network = _network(size, hidden, control_depth or depth, outputs, like)
        shifts = torch.randn(1 if still else steps, rows, hidden, **like).requires_grad_()
        posterior = Posterior(network, shifts, Reading(bound, width, unit, own))
    return {
        "z": z,
        "drift": _network(size, hidden, depth, size, like),
        "drift_shift": torch.randn(rows, hidden, **like).requires_grad_(),
        "diffusion": _diffusion(1 if shared else rows, size, slope, stratonovich, like),
        "posterior": posterior,
        "dt": torch.full_like(dt, 0.1) if alike else dt,
        "noise": torch.randn(steps, rows, size, **like) * dt.sqrt()[..., None],
        "saved": saved,
    }


def _leaves(case: dict) -> list[Tensor]:
    def of(network: Network) -> list[Tensor]:
        return [network.first, *(x for pair in (*network.hidden, network.last) for x in pair)]

    g = case["diffusion"]
    levels = [g] if isinstance(g, Tensor) else [g.level, g.slope, g.curve]
    leaves = [case["z"], case["drift_shift"], *levels, *of(case["drift"])]
    if case["posterior"] is not None:
        leaves += [case["posterior"].shifts, *of(case["posterior"].network)]
    return leaves


def _values_and_gradients(solve, case: dict) -> list[Tensor]:
    trajectory = solve(**case)
    scale = torch.arange(1, case["z"].shape[0] + 1).to(case["z"])
    loss = (
        trajectory.states.square().sum()
        + (trajectory.energy * scale + 2 * trajectory.width_kl * scale).sum()
    )
    return [*trajectory, *torch.autograd.grad(loss, _leaves(case))]


IN_UNITS = {"unit": 0.7, "width": True, "bound": 2.0}
CASES = [
    {},
    {"depth": 2, "bound": 2.0, "width": True},
    {"depth": 3, "width": True, "shared": True},
    {"bound": 1.0, "saved": (0, 2, 3), "alike": True},
    {"control": False, "depth": 2},
    {"control": False, "slope": True, "stratonovich": True, "alike": True},
    {"control_depth": 3, "still": True},
    {"unit": 0.7, "own": True, "saved": (4,)},
    IN_UNITS | {"own": True, "shared": True},
    IN_UNITS | {"slope": True, "depth": 2},
    IN_UNITS | {"slope": True, "own": True, "stratonovich": True, "control_depth": 2},
    {"slope": True, "shared": True, "width": True, "saved": (2, 4)},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_cpu_chain_agrees_with_autograd_in_float64(options):
    case = _case(**options)
    want = _values_and_gradients(_by_autograd, case)
    got = _values_and_gradients(_on_cpu, case)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_cpu_chain_without_gradients_is_the_same():
    case = _case(depth=2, width=True, slope=True)
    want = _on_cpu(**case)
    with torch.no_grad():
        torch.testing.assert_close(_on_cpu(**case), want, rtol=1e-12, atol=1e-12)


def test_second_backward_pass_gives_the_same_gradients():
    case = _case(depth=2, width=True)
    loss = _on_cpu(**case).states.square().sum()
    first = torch.autograd.grad(loss, _leaves(case), retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(loss, _leaves(case), allow_unused=True)
    torch.testing.assert_close(first, second)


def _on_cpu(noise: Tensor, **case):
    return cpu.em_trajectory(**case, dw=noise)


def _by_autograd(noise: Tensor, **case):
    return reference.em_trajectory(**case, dw=noise)


def test_a_curve_lets_g_be_least_in_between_and_its_slope_is_autograds():
    z = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None].requires_grad_()
    slope, curve = torch.tensor([[0.0]]).double(), torch.tensor([[2.0]]).double()
    law = Diffusion(torch.zeros(1, 1).double(), slope, curve, 0.1, -0.5)
    g, rise = law.with_slope(z)
    assert g.argmin() == 30
    assert torch.equal(g, law.at(z))
    torch.testing.assert_close(g, g.flip(0))
    torch.testing.assert_close(rise, torch.autograd.grad(g.sum(), z)[0])
