"""The whole chain by hand and fused, against autograd through its reference."""

from functools import partial

import pytest
import torch
from sdevid_kernels.em_trajectory import by_hand, em_trajectory, reference, why_not
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior
from sdevid_kernels.em_trajectory.segment import Inputs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdevid.sde.noise import Brownian
from sdevid.types import TICKS_PER_SECOND

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # else Triton's interpreter runs them


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
    if alike:
        dt = torch.full_like(dt, 0.1)
    g = (0.2 + torch.rand(1 if shared else rows, size, **like)).requires_grad_()
    if slope:
        bend = torch.randn(1 if shared else rows, size, **like).requires_grad_()
        g = Diffusion(g, bend, 0.1, -0.5, stratonovich)
    posterior = None
    if control:
        outputs = size * (2 if width else 1)
        network = _network(size, hidden, control_depth or depth, outputs, like)
        shifts = torch.randn(1 if still else steps, rows, hidden, **like).requires_grad_()
        posterior = Posterior(network, shifts, bound, width, unit, own)
    return {
        "z": z,
        "drift": _network(size, hidden, depth, size, like),
        "drift_shift": torch.randn(rows, hidden, **like).requires_grad_(),
        "diffusion": g,
        "posterior": posterior,
        "dt": dt,
        "noise": torch.randn(steps, rows, size, **like) * dt.sqrt()[..., None],
        "saved": saved,
    }


def _on(case: dict) -> dict:
    """The case on the device under test."""

    def move(x):
        if isinstance(x, Tensor):
            return x.detach().to(DEVICE).requires_grad_(x.requires_grad)
        if isinstance(x, tuple):
            parts = [move(part) for part in x]
            return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
        return x

    return {name: move(value) for name, value in case.items()}


def _leaves(case: dict) -> list[Tensor]:
    def of(network: Network) -> list[Tensor]:
        return [network.first, *(x for pair in (*network.hidden, network.last) for x in pair)]

    g = case["diffusion"]
    levels = [g] if isinstance(g, Tensor) else [g.level, g.slope]
    leaves = [case["z"], case["drift_shift"], *levels, *of(case["drift"])]
    if case["posterior"] is not None:
        leaves += [case["posterior"].shifts, *of(case["posterior"].network)]
    return leaves


def _values_and_gradients(solve, case: dict) -> list[Tensor]:
    made = solve(**case)
    scale = torch.arange(1, case["z"].shape[0] + 1).to(case["z"])
    loss = made.states.square().sum() + (made.energy * scale + 2 * made.width_kl * scale).sum()
    return [*made, *torch.autograd.grad(loss, _leaves(case))]


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


@pytest.mark.parametrize("steps_kept", [None, 1, 3])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_by_hand_agrees_with_autograd_in_float64(options, steps_kept, monkeypatch):
    """Also where the chain is cut into segments that are solved again."""
    case = _case(**options)
    want = _values_and_gradients(_by_autograd, case)
    if steps_kept:
        sizes = []
        whole = Inputs.bytes_a_step
        counted = lambda inputs: sizes.append(whole(inputs)) or sizes[-1]  # noqa: E731
        monkeypatch.setattr(Inputs, "bytes_a_step", counted)
        _values_and_gradients(by_hand.em_trajectory, case)
        monkeypatch.setattr(by_hand, "KEPT", steps_kept * sizes[-1])
    got = _values_and_gradients(by_hand.em_trajectory, case)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def _by_autograd(noise: Tensor, **case):
    return reference.em_trajectory(**case, dw=noise)


FUSED = [
    {"rows": 18, "size": 3, "hidden": 40, "steps": 2, "bound": 2.0, "width": True},
    {"rows": 4, "size": 20, "hidden": 8, "steps": 3},
    {"rows": 4, "size": 5, "control": False, "steps": 2},
]


@pytest.mark.parametrize("options", FUSED, ids=str)
def test_kernel_agrees_with_autograd(options):
    case = _on(_case(dtype=torch.float32, **options))
    want = _values_and_gradients(partial(em_trajectory, setting="reference"), case)
    got = _values_and_gradients(partial(em_trajectory, setting="triton"), case)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2])
def test_kernel_draws_the_paths_own_noise(tokens):
    """Rows of a clip are tokens; the increments are those of its Brownian path."""
    case = _on(_case(dtype=torch.float32, rows=6, size=8, hidden=8, steps=3))
    clips, cell = 6 // tokens, 768
    serial = torch.arange(clips) + 2**34
    ticks = (torch.arange(4) * cell + 5 * cell).expand(clips, -1)
    path = Brownian(9, serial, (tokens, 8), cell)
    case["dt"] = torch.full_like(case["dt"], cell / TICKS_PER_SECOND)
    case["noise"] = path.increments(ticks).transpose(0, 1).reshape(3, 6, 8).to(DEVICE)
    want = em_trajectory(**case, setting="reference")
    place = (ticks[:, :-1] // cell).t().contiguous().to(DEVICE)
    case["noise"] = (9, serial.to(DEVICE), place)
    for setting in ("triton", "auto", "reference"):
        got = em_trajectory(**case, setting=setting)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


class _Launches(TorchDispatchMode):
    """Counts launches: torch operators that compute, and kernels put in place of ours."""

    FREE = ("empty", "view", "detach", "select", "slice", "expand", "t.", "as_strided", "new_")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if not any(part in name.split("aten.")[-1] for part in self.FREE):
            self.names.append(name)
        return function(*args, **(kwargs or {}))

    def __getitem__(self, grid: tuple[int]):
        return lambda *_arguments, **_settings: self.names.append("ours")


def _split(case: dict) -> tuple[list[Tensor], list[Tensor]]:
    drift, posterior = case["drift"], case["posterior"]
    control = posterior.network
    return (
        [drift.first, case["drift_shift"], *drift.last],
        [control.first, posterior.shifts, *control.last],
    )


@pytest.mark.parametrize("steps", [2, 50])
def test_launches_do_not_grow_with_steps(steps, monkeypatch):
    from sdevid_kernels.em_trajectory import kernel

    case = _on(_case(dtype=torch.float32, rows=4, size=4, hidden=8, steps=steps, width=True))
    none = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    keys = (case["diffusion"], case["dt"], case["noise"], none, none, 0, 0.0, True)
    counted = _Launches()
    monkeypatch.setattr(kernel, "_forward", counted)
    monkeypatch.setattr(kernel, "_backward", counted)
    with counted, torch.no_grad():
        made = kernel.em_trajectory._init_fn(case["z"], *_split(case), *keys)
        back = kernel.em_trajectory_backward._init_fn(*made[:1], *made, *_split(case), *keys)
        back[3][..., :8].sum(0)  # the drift's shift, the same at every step
    assert counted.names.count("ours") == 2
    assert len(counted.names) <= 8, counted.names


def test_four_bytes_an_element_and_step_are_kept():
    case = _on(_case(dtype=torch.float32, rows=4, size=4, hidden=8, steps=3))
    given = {x.untyped_storage().data_ptr() for x in [*_leaves(case), case["dt"], case["noise"]]}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        made = em_trajectory(**case, setting="triton")
    own = sum(size for place, size in kept.items() if place not in given)
    keys = 2 * 8  # the unused clip and place
    assert own <= 4 * made.states.numel() + keys


def test_networks_that_do_not_fit_are_named_and_take_a_launch_a_step():
    case = _on(_case(dtype=torch.float32, depth=2, width=True))
    named = {name: case[name] for name in ("z", "drift", "posterior", "dt", "noise")}
    assert why_not(**named) == "a network has more than one hidden layer"
    got = _values_and_gradients(partial(em_trajectory, setting="triton"), case)
    want = _values_and_gradients(partial(em_trajectory, setting="reference"), case)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_operators_have_the_shapes_they_declare():
    from sdevid_kernels.em_trajectory import kernel

    case = _on(_case(dtype=torch.float32, rows=4, size=4, hidden=8, steps=2, width=True))
    none = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    keys = (case["diffusion"], case["dt"], case["noise"], none, none, 0, 0.0, True)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        kernel.em_trajectory, (case["z"], *_split(case), *keys), test_utils=checks
    )
    with torch.no_grad():
        made = kernel.em_trajectory(case["z"], *_split(case), *keys)
        back = (made[0], *made, *_split(case), *keys)
        torch.library.opcheck(kernel.em_trajectory_backward, back, test_utils=checks)
